"""German."""

from grammar.scenes import Activity, Scene
from grammar.table import sentence, table, words

# verb | infinitive | third person singular | past participle (with haben) | separable prefix | preposition (accusative)
# Infinitive and third person are given without the separable prefix.
VERBS = table(
    """
    buy | kaufen | kauft | gekauft; cook | kochen | kocht | gekocht; bake | backen | backt | gebacken
    taste | probieren | probiert | probiert; eat | essen | isst | gegessen; drink | trinken | trinkt | getrunken
    prepare | bereiten | bereitet | vorbereitet | vor; cut | schneiden | schneidet | geschnitten
    choose | wählen | wählt | gewählt; describe | beschreiben | beschreibt | beschrieben
    photograph | fotografieren | fotografiert | fotografiert; discuss | besprechen | bespricht | besprochen
    look_for | suchen | sucht | gesucht; show | zeigen | zeigt | gezeigt; draw | zeichnen | zeichnet | gezeichnet
    check | prüfen | prüft | geprüft; measure | messen | misst | gemessen
    observe | beobachten | beobachtet | beobachtet; predict | sagen | sagt | vorausgesagt | voraus
    listen_to | hören | hört | gehört; study | studieren | studiert | studiert
    explain | erklären | erklärt | erklärt; watch | sehen | sieht | gesehen; win | gewinnen | gewinnt | gewonnen
    organise | organisieren | organisiert | organisiert; throw | werfen | wirft | geworfen
    catch | fangen | fängt | gefangen; clean | reinigen | reinigt | gereinigt; take | nehmen | nimmt | genommen
    treat | behandeln | behandelt | behandelt; pack | packen | packt | gepackt; book | buchen | bucht | gebucht
    plan | planen | plant | geplant; wait_for | warten | wartet | gewartet | | auf
    play | spielen | spielt | gespielt; sing | singen | singt | gesungen
    compose | komponieren | komponiert | komponiert; record | nehmen | nimmt | aufgenommen | auf
    practise | üben | übt | geübt""",
    5,
)

# thing | nominative (the accusative differs only after `der`) | p for plural
THINGS = table(
    """
    soup | die Suppe; bread | das Brot; cheese | der Käse; salad | der Salat; rice | der Reis; cake | der Kuchen
    butter | die Butter; vegetables | das Gemüse; tea | der Tee; coffee | der Kaffee; breakfast | das Frühstück
    milk | die Milch; honey | der Honig; potatoes | die Kartoffeln | p; apples | die Äpfel | p; juice | der Saft
    pizza | die Pizza; recipe | das Rezept
    forecast | der Wetterbericht; storm | der Sturm; rain | der Regen; snow | der Schnee; fog | der Nebel
    rainbow | der Regenbogen; clouds | die Wolken | p; wind | der Wind; temperature | die Temperatur
    thunder | der Donner; lightning | der Blitz; heat | die Hitze; sky | der Himmel; frost | der Frost
    humidity | die Luftfeuchtigkeit; climate | das Klima; barometer | das Barometer; umbrella | der Regenschirm
    match | das Spiel; race | das Rennen; tournament | das Turnier; final | das Finale; training | das Training
    ball | der Ball; racket | der Schläger; medal | die Medaille; trophy | der Pokal
    competition | der Wettkampf; team | die Mannschaft; stadium | das Stadion; score | der Spielstand
    gloves | die Handschuhe | p; net | das Netz; jersey | das Trikot; marathon | der Marathon
    helmet | der Helm; gym | die Turnhalle
    medicine | das Medikament; ointment | die Salbe; vitamins | die Vitamine | p; bandage | der Verband
    thermometer | das Fieberthermometer; wound | die Wunde; illness | die Krankheit; pain | der Schmerz
    symptoms | die Symptome | p; blood_pressure | der Blutdruck; pulse | der Puls; diet | die Diät
    treatment | die Behandlung; diagnosis | die Diagnose; prescription | das Arztrezept; vaccine | der Impfstoff
    clinic | die Klinik; pills | die Tabletten | p
    ticket | die Fahrkarte; suitcase | der Koffer; passport | der Reisepass; map | die Landkarte; train | der Zug
    bus | der Bus; hotel | das Hotel; route | die Route; trip | die Reise; visa | das Visum
    luggage | das Gepäck; backpack | der Rucksack; guidebook | der Reiseführer; airport | der Flughafen
    station | der Bahnhof; island | die Insel; tent | das Zelt; flight | der Flug; harbour | der Hafen
    guitar | die Gitarre; piano | das Klavier; violin | die Geige; flute | die Flöte; drum | die Trommel
    trumpet | die Trompete; song | das Lied; melody | die Melodie; concert | das Konzert; album | das Album
    choir | der Chor; orchestra | das Orchester; rhythm | der Rhythmus; lyrics | der Liedtext
    sheet_music | die Noten | p; symphony | die Sinfonie; opera | die Oper; microphone | das Mikrofon""",
    2,
)

# subject | nominative | accusative | p for plural
SUBJECTS = table(
    """
    he | er | ihn; she | sie | sie; they | sie | sie | p; mother | meine Mutter | meine Mutter
    father | mein Vater | meinen Vater; sister | meine Schwester | meine Schwester
    brother | mein Bruder | meinen Bruder; grandmother | meine Großmutter | meine Großmutter
    grandfather | mein Großvater | meinen Großvater; aunt | meine Tante | meine Tante
    uncle | mein Onkel | meinen Onkel; friends | meine Freunde | meine Freunde | p
    neighbour | unser Nachbar | unseren Nachbarn; neighbours | die Nachbarn | die Nachbarn | p
    teacher | die Lehrerin | die Lehrerin; engineer | der Ingenieur | den Ingenieur
    journalist | die Journalistin | die Journalistin; lawyer | der Anwalt | den Anwalt
    children | die Kinder | die Kinder | p; students | die Studenten | die Studenten | p
    anna | Anna | Anna; leila | Leila | Leila; maria | Maria | Maria; nina | Nina | Nina; omar | Omar | Omar
    david | David | David; karim | Karim | Karim; adam | Adam | Adam""",
    3,
)

SLOTS = words(
    """
    yesterday | gestern; this_morning | heute Morgen; last_week | letzte Woche; last_month | letzten Monat
    two_days_ago | vor zwei Tagen; yesterday_evening | gestern Abend; last_year | letztes Jahr
    every_day | jeden Tag; every_week | jede Woche; every_morning | jeden Morgen; every_evening | jeden Abend
    on_sundays | sonntags; every_month | jeden Monat; tomorrow | morgen; next_week | nächste Woche
    this_evening | heute Abend; next_month | nächsten Monat; on_saturday | am Samstag
    day_after_tomorrow | übermorgen; next_year | nächstes Jahr
    city | in der Stadt; village | im Dorf; capital | in der Hauptstadt; sea | am Meer; mountains | in den Bergen
    south | im Süden
    holiday | heute ein Feiertag ist; little_time | nur wenig Zeit bleibt; guests_tomorrow | morgen Gäste kommen
    talk | alle davon sprechen; long_week | die Woche lang war; friend_asked | ein Freund darum gebeten hat
    guests_arrive | die Gäste ankommen; holidays_begin | die Ferien beginnen; work_over | die Arbeit vorbei ist
    others_leave | die anderen gehen; new_year | das neue Jahr beginnt
    enough_time | genug Zeit bleibt; others_agree | die anderen einverstanden sind; goes_well | alles gut geht
    no_objection | niemand etwas dagegen hat; necessary | es nötig ist
    i_think | ich glaube; everyone_knows | alle wissen; we_heard | wir haben gehört; clear | es ist klar
    newspaper | in der Zeitung steht
    when | wann; where | wo; with_whom | mit wem""",
)
POSITIVE = words(
    "easy | leicht; difficult | schwierig; important | wichtig; interesting | interessant; useful | nützlich"
)
COMPARATIVE = words(
    """easy | leichter; difficult | schwieriger; important | wichtiger; interesting | interessanter
    useful | nützlicher"""
)


def goal(activity: Activity) -> str:
    """Return the object in the accusative, after the preposition that the verb asks for."""
    phrase = THINGS[activity.thing][0]
    accusative = f"den {phrase[4:]}" if phrase.startswith("der ") else phrase
    return f"{VERBS[activity.verb][4]} {accusative}".strip()


def zu(activity: Activity, place: str = "") -> str:
    """Return the infinitive clause with `zu`, which stands between a separable prefix and its verb."""
    infinitive, _, _, prefix, _ = VERBS[activity.verb]
    return f"{place} {goal(activity)} ".lstrip() + (f"{prefix}zu{infinitive}" if prefix else f"zu {infinitive}")


def render(scene: Scene) -> str:
    """Say the scene in German."""
    frame = scene.frame
    subject, accusative, plural = SUBJECTS[frame.subject]
    time, place, extra = (SLOTS.get(key, "") for key in (frame.time, frame.place, frame.extra))
    infinitive, present, participle, prefix, preposition = VERBS[scene.first.verb]
    thing = goal(scene.first)
    have, will = ("haben", "werden") if plural else ("hat", "wird")
    infinitive_phrase = f"{thing} {prefix}{infinitive}"
    match frame.form:
        case "present":
            verb = infinitive if plural else present
            return sentence(f"{subject} {verb} {time} {thing} {prefix}".rstrip(), ".")
        case "past":
            return sentence(f"{time} {have} {subject} {place} {thing} {participle}", ".")
        case "future":
            return sentence(f"{subject} {will} {time} {infinitive_phrase}", ".")
        case "negation":
            denied = f"nicht {thing}" if preposition else f"{thing} nicht"
            return sentence(f"{subject} {have} {time} {denied} {participle}", ".")
        case "yes_no":
            return sentence(f"{have} {subject} {time} {thing} {participle}", "?")
        case "wh":
            return sentence(f"{extra} {will} {subject} {infinitive_phrase}", "?")
        case "because":
            return sentence(f"{subject} {'wollen' if plural else 'will'} {infinitive_phrase}, weil {extra}", ".")
        case "when":
            return sentence(f"wenn {extra}, {will} {subject} {infinitive_phrase}", ".")
        case "if":
            return sentence(f"falls {extra}, {will} {subject} {infinitive_phrase}", ".")
        case "that":
            return sentence(f"{extra}, dass {subject} {time} {thing} {participle} {have}", ".")
        case "and":
            second = f"{goal(scene.second)} {VERBS[scene.second.verb][2]}"
            return sentence(f"{time} {have} {subject} {thing} {participle} und {second}", ".")
        case "compare_doing":
            quality = f"ist es {COMPARATIVE[frame.extra]}"
            return sentence(f"für {accusative} {quality}, {zu(scene.first)}, als {zu(scene.second)}", ".")
        case "compare_things":
            first, number = THINGS[scene.first.thing]
            quality = f"{'sind' if number else 'ist'} {first} {COMPARATIVE[frame.extra]}"
            return sentence(f"für {accusative} {quality} als {THINGS[scene.second.thing][0]}", ".")
        case "must":
            return sentence(f"{subject} {'müssen' if plural else 'muss'} {time} {infinitive_phrase}", ".")
        case "impersonal":
            return sentence(f"es ist {POSITIVE[frame.extra]}, {zu(scene.first, place)}", ".")
        case "try":
            return sentence(f"{subject} {have} {time} versucht, {zu(scene.first)}", ".")
    raise ValueError(frame.form)
