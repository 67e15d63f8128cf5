"""French."""

from grammar.scenes import Activity, Scene
from grammar.table import sentence, table, words

# verb | infinitive | present singular | present plural | past participle (with avoir) | future stem | preposition
VERBS = table(
    """
    buy | acheter | achète | achètent | acheté | achèter; cook | cuisiner | cuisine | cuisinent | cuisiné | cuisiner
    bake | cuire | cuit | cuisent | cuit | cuir; taste | goûter | goûte | goûtent | goûté | goûter
    eat | manger | mange | mangent | mangé | manger; drink | boire | boit | boivent | bu | boir
    prepare | préparer | prépare | préparent | préparé | préparer; cut | couper | coupe | coupent | coupé | couper
    choose | choisir | choisit | choisissent | choisi | choisir
    describe | décrire | décrit | décrivent | décrit | décrir
    photograph | photographier | photographie | photographient | photographié | photographier
    discuss | discuter | discute | discutent | discuté | discuter | de
    look_for | chercher | cherche | cherchent | cherché | chercher
    show | montrer | montre | montrent | montré | montrer
    draw | dessiner | dessine | dessinent | dessiné | dessiner
    check | vérifier | vérifie | vérifient | vérifié | vérifier
    measure | mesurer | mesure | mesurent | mesuré | mesurer
    observe | observer | observe | observent | observé | observer
    predict | prévoir | prévoit | prévoient | prévu | prévoir
    listen_to | écouter | écoute | écoutent | écouté | écouter
    study | étudier | étudie | étudient | étudié | étudier
    explain | expliquer | explique | expliquent | expliqué | expliquer
    watch | regarder | regarde | regardent | regardé | regarder; win | gagner | gagne | gagnent | gagné | gagner
    organise | organiser | organise | organisent | organisé | organiser
    throw | lancer | lance | lancent | lancé | lancer; catch | attraper | attrape | attrapent | attrapé | attraper
    clean | nettoyer | nettoie | nettoient | nettoyé | nettoier; take | prendre | prend | prennent | pris | prendr
    treat | soigner | soigne | soignent | soigné | soigner; pack | faire | fait | font | fait | fer
    book | réserver | réserve | réservent | réservé | réserver
    plan | planifier | planifie | planifient | planifié | planifier
    wait_for | attendre | attend | attendent | attendu | attendr
    play | jouer | joue | jouent | joué | jouer | de; sing | chanter | chante | chantent | chanté | chanter
    compose | composer | compose | composent | composé | composer
    record | enregistrer | enregistre | enregistrent | enregistré | enregistrer
    practise | répéter | répète | répètent | répété | répéter""",
    6,
)

# thing | definite noun phrase | gender and number
THINGS = table(
    """
    soup | la soupe | f; bread | le pain | m; cheese | le fromage | m; salad | la salade | f; rice | le riz | m
    cake | le gâteau | m; butter | le beurre | m; vegetables | les légumes | mp; tea | le thé | m
    coffee | le café | m; breakfast | le petit-déjeuner | m; milk | le lait | m; honey | le miel | m
    potatoes | les pommes de terre | fp; apples | les pommes | fp; juice | le jus | m; pizza | la pizza | f
    recipe | la recette | f
    forecast | la météo | f; storm | la tempête | f; rain | la pluie | f; snow | la neige | f
    fog | le brouillard | m; rainbow | l'arc-en-ciel | m; clouds | les nuages | mp; wind | le vent | m
    temperature | la température | f; thunder | le tonnerre | m; lightning | l'éclair | m; heat | la chaleur | f
    sky | le ciel | m; frost | le gel | m; humidity | l'humidité | f; climate | le climat | m
    barometer | le baromètre | m; umbrella | le parapluie | m
    match | le match | m; race | la course | f; tournament | le tournoi | m; final | la finale | f
    training | l'entraînement | m; ball | le ballon | m; racket | la raquette | f; medal | la médaille | f
    trophy | le trophée | m; competition | la compétition | f; team | l'équipe | f; stadium | le stade | m
    score | le score | m; gloves | les gants | mp; net | le filet | m; jersey | le maillot | m
    marathon | le marathon | m; helmet | le casque | m; gym | le gymnase | m
    medicine | le médicament | m; ointment | la pommade | f; vitamins | les vitamines | fp
    bandage | le bandage | m; thermometer | le thermomètre | m; wound | la blessure | f; illness | la maladie | f
    pain | la douleur | f; symptoms | les symptômes | mp; blood_pressure | la tension artérielle | f
    pulse | le pouls | m; diet | le régime | m; treatment | le traitement | m; diagnosis | le diagnostic | m
    prescription | l'ordonnance | f; vaccine | le vaccin | m; clinic | la clinique | f; pills | les pilules | fp
    ticket | le billet | m; suitcase | la valise | f; passport | le passeport | m; map | la carte | f
    train | le train | m; bus | le bus | m; hotel | l'hôtel | m; route | l'itinéraire | m; trip | le voyage | m
    visa | le visa | m; luggage | les bagages | mp; backpack | le sac à dos | m; guidebook | le guide de voyage | m
    airport | l'aéroport | m; station | la gare | f; island | l'île | f; tent | la tente | f; flight | le vol | m
    harbour | le port | m
    guitar | la guitare | f; piano | le piano | m; violin | le violon | m; flute | la flûte | f
    drum | le tambour | m; trumpet | la trompette | f; song | la chanson | f; melody | la mélodie | f
    concert | le concert | m; album | l'album | m; choir | la chorale | f; orchestra | l'orchestre | m
    rhythm | le rythme | m; lyrics | les paroles | fp; sheet_music | la partition | f; symphony | la symphonie | f
    opera | l'opéra | m; microphone | le micro | m""",
    2,
)

# subject | subject form | form after a preposition | p for plural
SUBJECTS = table(
    """
    he | il | lui; she | elle | elle; they | ils | eux | p; mother | ma mère | ma mère; father | mon père | mon père
    sister | ma sœur | ma sœur; brother | mon frère | mon frère; grandmother | ma grand-mère | ma grand-mère
    grandfather | mon grand-père | mon grand-père; aunt | ma tante | ma tante; uncle | mon oncle | mon oncle
    friends | mes amis | mes amis | p; neighbour | notre voisin | notre voisin
    neighbours | les voisins | les voisins | p; teacher | la professeure | la professeure
    engineer | l'ingénieur | l'ingénieur; journalist | la journaliste | la journaliste
    lawyer | l'avocat | l'avocat; children | les enfants | les enfants | p
    students | les étudiants | les étudiants | p
    anna | Anna | Anna; leila | Leïla | Leïla; maria | Maria | Maria; nina | Nina | Nina; omar | Omar | Omar
    david | David | David; karim | Karim | Karim; adam | Adam | Adam""",
    3,
)

SLOTS = words(
    """
    yesterday | hier; this_morning | ce matin; last_week | la semaine dernière; last_month | le mois dernier
    two_days_ago | il y a deux jours; yesterday_evening | hier soir; last_year | l'année dernière
    every_day | chaque jour; every_week | chaque semaine; every_morning | chaque matin; every_evening | chaque soir
    on_sundays | le dimanche; every_month | chaque mois; tomorrow | demain; next_week | la semaine prochaine
    this_evening | ce soir; next_month | le mois prochain; on_saturday | samedi; day_after_tomorrow | après-demain
    next_year | l'année prochaine
    city | en ville; village | au village; capital | dans la capitale; sea | au bord de la mer
    mountains | à la montagne; south | dans le sud
    holiday | c'est un jour férié aujourd'hui; little_time | il reste peu de temps
    guests_tomorrow | des invités arrivent demain; talk | tout le monde en parle
    long_week | la semaine a été longue; friend_asked | un ami l'a demandé
    guests_arrive | les invités arriveront; holidays_begin | les vacances commenceront
    work_over | le travail sera terminé; others_leave | les autres partiront
    new_year | la nouvelle année commencera
    enough_time | s'il y a assez de temps; others_agree | si les autres sont d'accord; goes_well | si tout va bien
    no_objection | si personne ne s'y oppose; necessary | si c'est nécessaire
    i_think | je crois; everyone_knows | tout le monde sait; we_heard | nous avons entendu dire
    clear | il est clair; newspaper | le journal dit
    when | quand; where | où; with_whom | avec qui""",
)
# quality | adjective in the masculine singular (the other forms are regular)
QUALITIES = words(
    "easy | facile; difficult | difficile; important | important; interesting | intéressant; useful | utile"
)


def elide(word: str, following: str) -> str:
    """Join `de`, `que` or `ne` to what follows; no word in this lexicon begins with an aspirated h."""
    return f"{word[:-1]}'{following}" if following[0].lower() in "aâàeéèêiîoôuh" else f"{word} {following}"


def agree(adjective: str, form: str) -> str:
    """Inflect a regular adjective for `m`, `f`, `mp` or `fp`."""
    feminine = "e" if form[0] == "f" and not adjective.endswith("e") else ""
    return adjective + feminine + ("s" if form.endswith("p") else "")


def goal(activity: Activity) -> str:
    """Return the object, with the preposition `de` contracted where the verb asks for it."""
    phrase = THINGS[activity.thing][0]
    if not VERBS[activity.verb][5]:
        return phrase
    article, _, noun = phrase.partition(" ")
    return {"le": f"du {noun}", "les": f"des {noun}"}.get(article, f"de {phrase}")


def render(scene: Scene) -> str:
    """Say the scene in French."""
    frame = scene.frame
    subject, tonic, plural = SUBJECTS[frame.subject]
    time, place, extra = (SLOTS.get(key, "") for key in (frame.time, frame.place, frame.extra))
    verb, thing = VERBS[scene.first.verb], goal(scene.first)
    have = "ont" if plural else "a"
    infinitive = f"{verb[0]} {thing}"
    past = f"{have} {verb[3]} {thing}"
    future = f"{verb[4]}{'ont' if plural else 'a'} {thing}"
    other = f"{VERBS[scene.second.verb][0]} {goal(scene.second)}"
    match frame.form:
        case "present":
            return sentence(f"{subject} {verb[2 if plural else 1]} {thing} {time}", ".")
        case "past":
            return sentence(f"{time}, {subject} {past} {place}", ".")
        case "future":
            return sentence(f"{subject} {future} {time}", ".")
        case "negation":
            return sentence(f"{subject} {elide('ne', have)} pas {verb[3]} {thing} {time}", ".")
        case "yes_no":
            return sentence(f"est-ce {elide('que', subject)} {past} {time}", " ?")
        case "wh":
            return sentence(f"{extra} est-ce {elide('que', subject)} {future}", " ?")
        case "because":
            want = "veulent" if plural else "veut"
            return sentence(f"{subject} {want} {infinitive} parce {elide('que', extra)}", ".")
        case "when":
            return sentence(f"quand {extra}, {subject} {future}", ".")
        case "if":
            return sentence(f"{extra}, {subject} {future}", ".")
        case "that":
            return sentence(f"{extra} {elide('que', subject)} {past} {time}", ".")
        case "and":
            second = f"{have} {VERBS[scene.second.verb][3]} {goal(scene.second)}"
            return sentence(f"{time}, {subject} {past} et {second}", ".")
        case "compare_doing":
            quality = f"est plus {QUALITIES[frame.extra]} {elide('que', elide('de', other))}"
            return sentence(f"pour {tonic}, {infinitive} {quality}", ".")
        case "compare_things":
            first, form = THINGS[scene.first.thing]
            quality = f"{'sont' if form.endswith('p') else 'est'} plus {agree(QUALITIES[frame.extra], form)} que"
            return sentence(f"pour {tonic}, {first} {quality} {THINGS[scene.second.thing][0]}", ".")
        case "must":
            return sentence(f"{subject} {'doivent' if plural else 'doit'} {infinitive} {time}", ".")
        case "impersonal":
            return sentence(f"il est {QUALITIES[frame.extra]} {elide('de', infinitive)} {place}", ".")
        case "try":
            return sentence(f"{subject} {have} essayé {elide('de', infinitive)} {time}", ".")
    raise ValueError(frame.form)
