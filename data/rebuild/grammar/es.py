"""Spanish."""

from grammar.scenes import Activity, Scene
from grammar.table import sentence, table, words

# verb | infinitive | present singular | present plural | preterite singular | preterite plural
VERBS = table(
    """
    buy | comprar | compra | compran | compró | compraron; cook | cocinar | cocina | cocinan | cocinó | cocinaron
    bake | hornear | hornea | hornean | horneó | hornearon; taste | probar | prueba | prueban | probó | probaron
    eat | comer | come | comen | comió | comieron; drink | beber | bebe | beben | bebió | bebieron
    prepare | preparar | prepara | preparan | preparó | prepararon; cut | cortar | corta | cortan | cortó | cortaron
    choose | elegir | elige | eligen | eligió | eligieron
    describe | describir | describe | describen | describió | describieron
    photograph | fotografiar | fotografía | fotografían | fotografió | fotografiaron
    discuss | comentar | comenta | comentan | comentó | comentaron
    look_for | buscar | busca | buscan | buscó | buscaron; show | mostrar | muestra | muestran | mostró | mostraron
    draw | dibujar | dibuja | dibujan | dibujó | dibujaron; check | revisar | revisa | revisan | revisó | revisaron
    measure | medir | mide | miden | midió | midieron; observe | observar | observa | observan | observó | observaron
    predict | pronosticar | pronostica | pronostican | pronosticó | pronosticaron
    listen_to | escuchar | escucha | escuchan | escuchó | escucharon
    study | estudiar | estudia | estudian | estudió | estudiaron
    explain | explicar | explica | explican | explicó | explicaron; watch | ver | ve | ven | vio | vieron
    win | ganar | gana | ganan | ganó | ganaron; organise | organizar | organiza | organizan | organizó | organizaron
    throw | lanzar | lanza | lanzan | lanzó | lanzaron; catch | atrapar | atrapa | atrapan | atrapó | atraparon
    clean | limpiar | limpia | limpian | limpió | limpiaron; take | tomar | toma | toman | tomó | tomaron
    treat | tratar | trata | tratan | trató | trataron; pack | hacer | hace | hacen | hizo | hicieron
    book | reservar | reserva | reservan | reservó | reservaron
    plan | planear | planea | planean | planeó | planearon
    wait_for | esperar | espera | esperan | esperó | esperaron; play | tocar | toca | tocan | tocó | tocaron
    sing | cantar | canta | cantan | cantó | cantaron; compose | componer | compone | componen | compuso | compusieron
    record | grabar | graba | graban | grabó | grabaron; practise | ensayar | ensaya | ensayan | ensayó | ensayaron""",
    5,
)

# thing | definite noun phrase | p for plural | as an object where it differs (groups of people take `a`)
THINGS = table(
    """
    soup | la sopa; bread | el pan; cheese | el queso; salad | la ensalada; rice | el arroz; cake | el pastel
    butter | la mantequilla; vegetables | las verduras | p; tea | el té; coffee | el café; breakfast | el desayuno
    milk | la leche; honey | la miel; potatoes | las patatas | p; apples | las manzanas | p; juice | el zumo
    pizza | la pizza; recipe | la receta
    forecast | el pronóstico del tiempo; storm | la tormenta; rain | la lluvia; snow | la nieve; fog | la niebla
    rainbow | el arcoíris; clouds | las nubes | p; wind | el viento; temperature | la temperatura
    thunder | el trueno; lightning | el relámpago; heat | el calor; sky | el cielo; frost | la helada
    humidity | la humedad; climate | el clima; barometer | el barómetro; umbrella | el paraguas
    match | el partido; race | la carrera; tournament | el torneo; final | la final; training | el entrenamiento
    ball | la pelota; racket | la raqueta; medal | la medalla; trophy | el trofeo; competition | la competición
    team | el equipo | | al equipo; stadium | el estadio; score | el marcador; gloves | los guantes | p; net | la red
    jersey | la camiseta; marathon | el maratón; helmet | el casco; gym | el gimnasio
    medicine | el medicamento; ointment | la pomada; vitamins | las vitaminas | p; bandage | el vendaje
    thermometer | el termómetro; wound | la herida; illness | la enfermedad; pain | el dolor
    symptoms | los síntomas | p; blood_pressure | la presión arterial; pulse | el pulso; diet | la dieta
    treatment | el tratamiento; diagnosis | el diagnóstico; prescription | la receta médica; vaccine | la vacuna
    clinic | la clínica; pills | las pastillas | p
    ticket | el billete; suitcase | la maleta; passport | el pasaporte; map | el mapa; train | el tren
    bus | el autobús; hotel | el hotel; route | la ruta; trip | el viaje; visa | el visado
    luggage | el equipaje; backpack | la mochila; guidebook | la guía de viaje; airport | el aeropuerto
    station | la estación; island | la isla; tent | la tienda de campaña; flight | el vuelo; harbour | el puerto
    guitar | la guitarra; piano | el piano; violin | el violín; flute | la flauta; drum | el tambor
    trumpet | la trompeta; song | la canción; melody | la melodía; concert | el concierto; album | el álbum
    choir | el coro | | al coro; orchestra | la orquesta | | a la orquesta; rhythm | el ritmo
    lyrics | la letra de la canción; sheet_music | la partitura; symphony | la sinfonía; opera | la ópera
    microphone | el micrófono""",
    3,
)

# subject | form | p for plural (the form after a preposition is the same)
SUBJECTS = table(
    """
    he | él; she | ella; they | ellos | p; mother | mi madre; father | mi padre; sister | mi hermana
    brother | mi hermano; grandmother | mi abuela; grandfather | mi abuelo; aunt | mi tía; uncle | mi tío
    friends | mis amigos | p; neighbour | nuestro vecino; neighbours | los vecinos | p; teacher | la profesora
    engineer | el ingeniero; journalist | la periodista; lawyer | el abogado; children | los niños | p
    students | los estudiantes | p; anna | Ana; leila | Leila; maria | María; nina | Nina; omar | Omar
    david | David; karim | Karim; adam | Adán""",
    2,
)

SLOTS = words(
    """
    yesterday | ayer; this_morning | esta mañana; last_week | la semana pasada; last_month | el mes pasado
    two_days_ago | hace dos días; yesterday_evening | ayer por la tarde; last_year | el año pasado
    every_day | todos los días; every_week | todas las semanas; every_morning | todas las mañanas
    every_evening | todas las tardes; on_sundays | los domingos; every_month | todos los meses
    tomorrow | mañana; next_week | la próxima semana; this_evening | esta tarde; next_month | el próximo mes
    on_saturday | el sábado; day_after_tomorrow | pasado mañana; next_year | el próximo año
    city | en la ciudad; village | en el pueblo; capital | en la capital; sea | junto al mar
    mountains | en las montañas; south | en el sur
    holiday | hoy es día festivo; little_time | queda poco tiempo; guests_tomorrow | mañana vienen invitados
    talk | todo el mundo habla de ello; long_week | la semana ha sido larga; friend_asked | un amigo lo ha pedido
    guests_arrive | lleguen los invitados; holidays_begin | empiecen las vacaciones; work_over | termine el trabajo
    others_leave | se vayan los demás; new_year | empiece el año nuevo
    enough_time | hay tiempo suficiente; others_agree | los demás están de acuerdo; goes_well | todo va bien
    no_objection | nadie se opone; necessary | es necesario
    i_think | creo; everyone_knows | todos saben; we_heard | hemos oído; clear | está claro
    newspaper | el periódico dice
    when | cuándo; where | dónde; with_whom | con quién""",
)
# quality | adjective in the singular | in the plural
QUALITIES = table(
    """easy | fácil | fáciles; difficult | difícil | difíciles; important | importante | importantes
    interesting | interesante | interesantes; useful | útil | útiles""",
    2,
)


def goal(activity: Activity) -> str:
    """Return the object."""
    phrase, _, as_object = THINGS[activity.thing]
    return as_object or phrase


def render(scene: Scene) -> str:
    """Say the scene in Spanish."""
    frame = scene.frame
    subject, plural = SUBJECTS[frame.subject]
    time, place, extra = (SLOTS.get(key, "") for key in (frame.time, frame.place, frame.extra))

    def do(column: int, activity: Activity = scene.first) -> str:
        return f"{VERBS[activity.verb][column]} {goal(activity)}"

    infinitive, past = do(0), do(4 if plural else 3)
    go = "van" if plural else "va"
    future = f"{go} a {infinitive}"
    match frame.form:
        case "present":
            return sentence(f"{subject} {do(2 if plural else 1)} {time}", ".")
        case "past":
            return sentence(f"{time} {subject} {past} {place}", ".")
        case "future":
            return sentence(f"{subject} {future} {time}", ".")
        case "negation":
            return sentence(f"{subject} no {past} {time}", ".")
        case "yes_no":
            return sentence(f"¿{VERBS[scene.first.verb][4 if plural else 3]} {subject} {goal(scene.first)} {time}", "?")
        case "wh":
            return sentence(f"¿{extra} {go} {subject} a {infinitive}", "?")
        case "because":
            return sentence(f"{subject} {'quieren' if plural else 'quiere'} {infinitive} porque {extra}", ".")
        case "when":
            return sentence(f"cuando {extra}, {subject} {future}", ".")
        case "if":
            return sentence(f"si {extra}, {subject} {future}", ".")
        case "that":
            return sentence(f"{extra} que {subject} {past} {time}", ".")
        case "and":
            return sentence(f"{time} {subject} {past} y {do(4 if plural else 3, scene.second)}", ".")
        case "compare_doing":
            quality = QUALITIES[frame.extra][0]
            return sentence(f"para {subject}, {infinitive} es más {quality} que {do(0, scene.second)}", ".")
        case "compare_things":
            thing, several = THINGS[scene.first.thing][0], bool(THINGS[scene.first.thing][1])
            quality = f"{'son' if several else 'es'} más {QUALITIES[frame.extra][several]} que"
            return sentence(f"para {subject}, {thing} {quality} {THINGS[scene.second.thing][0]}", ".")
        case "must":
            return sentence(f"{subject} {'tienen' if plural else 'tiene'} que {infinitive} {time}", ".")
        case "impersonal":
            return sentence(f"es {QUALITIES[frame.extra][0]} {infinitive} {place}", ".")
        case "try":
            return sentence(f"{subject} {'intentaron' if plural else 'intentó'} {infinitive} {time}", ".")
    raise ValueError(frame.form)
