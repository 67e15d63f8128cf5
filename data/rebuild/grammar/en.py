"""English."""

from grammar.scenes import Activity, Scene
from grammar.table import sentence, table, words

# verb | infinitive | third person singular | past | -ing form
VERBS = table(
    """
    buy | buy | buys | bought | buying; cook | cook | cooks | cooked | cooking; bake | bake | bakes | baked | baking
    taste | taste | tastes | tasted | tasting
    eat | eat | eats | ate | eating; drink | drink | drinks | drank | drinking
    prepare | prepare | prepares | prepared | preparing; cut | cut | cuts | cut | cutting
    choose | choose | chooses | chose | choosing; describe | describe | describes | described | describing
    photograph | photograph | photographs | photographed | photographing
    discuss | discuss | discusses | discussed | discussing
    look_for | look for | looks for | looked for | looking for; show | show | shows | showed | showing
    draw | draw | draws | drew | drawing; check | check | checks | checked | checking
    measure | measure | measures | measured | measuring; observe | observe | observes | observed | observing
    predict | predict | predicts | predicted | predicting
    listen_to | listen to | listens to | listened to | listening to; study | study | studies | studied | studying
    explain | explain | explains | explained | explaining; watch | watch | watches | watched | watching
    win | win | wins | won | winning; organise | organise | organises | organised | organising
    throw | throw | throws | threw | throwing; catch | catch | catches | caught | catching
    clean | clean | cleans | cleaned | cleaning; take | take | takes | took | taking
    treat | treat | treats | treated | treating; pack | pack | packs | packed | packing
    book | book | books | booked | booking; plan | plan | plans | planned | planning
    wait_for | wait for | waits for | waited for | waiting for; play | play | plays | played | playing
    sing | sing | sings | sang | singing; compose | compose | composes | composed | composing
    record | record | records | recorded | recording; practise | practise | practises | practised | practising""",
    4,
)

# The keys of the things are English nouns already; only their number has to be known.
PLURAL_THINGS = ["vegetables", "potatoes", "apples", "clouds", "gloves", "vitamins", "symptoms", "pills", "lyrics"]

# subject | subject form | object form | p for plural
SUBJECTS = table(
    """
    he | he | him; she | she | her; they | they | them | p; mother | my mother | my mother
    father | my father | my father; sister | my sister | my sister; brother | my brother | my brother
    grandmother | my grandmother | my grandmother; grandfather | my grandfather | my grandfather
    aunt | my aunt | my aunt; uncle | my uncle | my uncle; friends | my friends | my friends | p
    neighbour | our neighbour | our neighbour; neighbours | the neighbours | the neighbours | p
    teacher | the teacher | the teacher; engineer | the engineer | the engineer
    journalist | the journalist | the journalist; lawyer | the lawyer | the lawyer
    children | the children | the children | p; students | the students | the students | p
    anna | Anna | Anna; leila | Leila | Leila; maria | Maria | Maria; nina | Nina | Nina; omar | Omar | Omar
    david | David | David; karim | Karim | Karim; adam | Adam | Adam""",
    3,
)

SLOTS = words(
    """
    yesterday | yesterday; this_morning | this morning; last_week | last week; last_month | last month
    two_days_ago | two days ago; yesterday_evening | yesterday evening; last_year | last year
    every_day | every day; every_week | every week; every_morning | every morning; every_evening | every evening
    on_sundays | on Sundays; every_month | every month; tomorrow | tomorrow; next_week | next week
    this_evening | this evening; next_month | next month; on_saturday | on Saturday
    day_after_tomorrow | the day after tomorrow; next_year | next year
    city | in the city; village | in the village; capital | in the capital; sea | by the sea
    mountains | in the mountains; south | in the south
    holiday | today is a holiday; little_time | there is little time left
    guests_tomorrow | guests are coming tomorrow; talk | everyone is talking about it
    long_week | the week was long; friend_asked | a friend asked for it
    guests_arrive | the guests arrive; holidays_begin | the holidays begin; work_over | the work is over
    others_leave | the others leave; new_year | the new year begins
    enough_time | there is enough time; others_agree | the others agree; goes_well | everything goes well
    no_objection | nobody objects; necessary | it is necessary
    i_think | I think; everyone_knows | everyone knows; we_heard | we heard; clear | it is clear
    newspaper | the newspaper says""",
)
POSITIVE = words(
    "easy | easy; difficult | difficult; important | important; interesting | interesting; useful | useful"
)
COMPARATIVE = words(
    """easy | easier; difficult | more difficult; important | more important; interesting | more interesting
    useful | more useful"""
)


def thing(key: str) -> str:
    """Return the definite noun phrase."""
    return f"the {key.replace('_', ' ')}"


def render(scene: Scene) -> str:
    """Say the scene in English."""
    frame = scene.frame
    subject, object_form, plural = SUBJECTS[frame.subject]
    time, place, extra = (SLOTS.get(key, "") for key in (frame.time, frame.place, frame.extra))

    def do(column: int, activity: Activity = scene.first) -> str:
        return f"{VERBS[activity.verb][column]} {thing(activity.thing)}"

    infinitive = do(0)
    match frame.form:
        case "present":
            return sentence(f"{subject} {do(0 if plural else 1)} {time}", ".")
        case "past":
            return sentence(f"{time} {subject} {do(2)} {place}", ".")
        case "future":
            return sentence(f"{subject} will {infinitive} {time}", ".")
        case "negation":
            return sentence(f"{subject} did not {infinitive} {time}", ".")
        case "yes_no":
            return sentence(f"did {subject} {infinitive} {time}", "?")
        case "wh" if frame.extra == "with_whom":
            return sentence(f"who will {subject} {infinitive} with", "?")
        case "wh":
            return sentence(f"{frame.extra} will {subject} {infinitive}", "?")
        case "because":
            return sentence(f"{subject} {'want' if plural else 'wants'} to {infinitive} because {extra}", ".")
        case "when" | "if":
            return sentence(f"{frame.form} {extra}, {subject} will {infinitive}", ".")
        case "that":
            return sentence(f"{extra} that {subject} {do(2)} {time}", ".")
        case "and":
            return sentence(f"{time} {subject} {do(2)} and {do(2, scene.second)}", ".")
        case "compare_doing":
            quality = COMPARATIVE[frame.extra]
            return sentence(f"for {object_form}, {do(3)} is {quality} than {do(3, scene.second)}", ".")
        case "compare_things":
            verb = "are" if scene.first.thing in PLURAL_THINGS else "is"
            quality = f"{verb} {COMPARATIVE[frame.extra]} than"
            return sentence(f"for {object_form}, {thing(scene.first.thing)} {quality} {thing(scene.second.thing)}", ".")
        case "must":
            return sentence(f"{subject} {'have' if plural else 'has'} to {infinitive} {time}", ".")
        case "impersonal":
            return sentence(f"it is {POSITIVE[frame.extra]} to {infinitive} {place}", ".")
        case "try":
            return sentence(f"{subject} tried to {infinitive} {time}", ".")
    raise ValueError(frame.form)
