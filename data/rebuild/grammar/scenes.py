"""What the sentences say, free of any language: topics, activities, and the shared slots of a scene."""

from dataclasses import dataclass

from grammar.table import words

LANGUAGES = ("en", "fr", "de", "es", "ru", "ar", "hi", "zh")

# One line a verb: the objects with which the activity makes sense.
_ACTIVITIES = {
    "food": """
        buy | bread cheese rice vegetables milk honey potatoes apples juice coffee tea butter
        cook | soup rice vegetables potatoes; bake | bread cake pizza
        taste | soup cheese salad cake honey juice butter; eat | bread salad rice cake apples pizza vegetables
        drink | tea coffee milk juice; prepare | breakfast salad soup
        cut | bread cheese cake vegetables apples pizza butter; choose | breakfast recipe cheese apples
        describe | recipe breakfast soup cake; photograph | cake breakfast salad apples; discuss | recipe breakfast
        look_for | honey recipe cheese juice butter; show | recipe cake; draw | apples cake bread""",
    "weather": """
        check | temperature humidity barometer; measure | temperature humidity
        observe | storm rain snow fog rainbow clouds lightning sky
        photograph | rainbow clouds lightning storm sky fog snow; predict | storm rain fog heat frost
        listen_to | thunder forecast; study | climate clouds storm wind lightning forecast sky
        describe | storm heat fog rainbow sky climate thunder frost
        discuss | forecast climate heat storm humidity frost; draw | rainbow clouds sky lightning
        buy | umbrella barometer; choose | umbrella barometer; look_for | umbrella barometer rainbow
        show | umbrella barometer
        explain | rainbow thunder climate fog lightning""",
    "sport": """
        watch | match race tournament final competition marathon training
        win | match race tournament final medal trophy competition marathon
        organise | tournament race training competition match marathon; throw | ball; catch | ball
        buy | ball racket jersey helmet net gloves; choose | team stadium jersey racket ball helmet gloves
        look_for | ball stadium racket helmet gym gloves; describe | match final stadium medal race
        discuss | match score training final; photograph | stadium team medal trophy race
        show | medal trophy jersey racket; draw | ball stadium trophy helmet; explain | score training
        check | net racket score helmet; clean | helmet trophy medal gloves""",
    "health": """
        take | medicine vitamins pills; measure | blood_pressure pulse
        check | blood_pressure pulse prescription thermometer wound bandage symptoms
        treat | wound illness pain symptoms; clean | thermometer
        buy | medicine ointment vitamins bandage thermometer pills; choose | diet treatment clinic medicine
        look_for | clinic prescription thermometer bandage ointment; describe | pain symptoms illness treatment
        discuss | diagnosis diet treatment illness vaccine; explain | diagnosis diet treatment prescription
        study | illness vaccine symptoms pain; show | prescription wound pills bandage
        photograph | wound prescription clinic; prepare | ointment bandage vaccine; draw | clinic bandage""",
    "travel": """
        pack | suitcase backpack luggage; book | ticket hotel flight trip; plan | route trip
        wait_for | train bus luggage flight; buy | ticket map suitcase backpack guidebook tent
        choose | route hotel island suitcase tent; look_for | passport station airport map hotel luggage harbour
        describe | route island hotel trip airport harbour; discuss | route trip visa flight
        photograph | island station hotel airport train harbour; show | passport visa ticket map backpack
        check | passport ticket visa luggage route; draw | map island train tent bus
        study | map guidebook route; organise | trip; explain | route map""",
    "music": """
        play | guitar piano violin flute trumpet; sing | song melody; compose | song melody symphony
        listen_to | song melody concert album symphony opera
        record | song album melody concert symphony; practise | song melody symphony
        buy | guitar piano violin flute trumpet drum album microphone; choose | song melody album microphone flute
        look_for | sheet_music microphone guitar flute drum; describe | melody rhythm opera choir orchestra
        discuss | concert album opera lyrics rhythm; organise | concert; photograph | orchestra choir piano concert
        show | guitar sheet_music trumpet violin; check | microphone drum piano; clean | flute trumpet piano violin
        study | sheet_music opera rhythm lyrics; draw | violin piano guitar drum; explain | rhythm lyrics""",
}

TOPICS = tuple(_ACTIVITIES)


@dataclass(frozen=True)
class Activity:
    """Something that people do: a verb and the thing it is done to."""

    verb: str
    thing: str


ACTIVITIES: dict[str, tuple[Activity, ...]] = {
    topic: tuple(Activity(verb, thing) for verb, things in words(text).items() for thing in things.split())
    for topic, text in _ACTIVITIES.items()
}

# Nobody wins the final every day: these verbs do not enter the habitual present.
ONE_OFF_VERBS = ("buy", "choose", "book", "win", "compose", "predict", "look_for")

# The slots below are shared by all topics, so that they tell nothing about the topic.
SUBJECTS = [
    "he",
    "she",
    "they",
    "mother",
    "father",
    "sister",
    "brother",
    "grandmother",
    "grandfather",
    "aunt",
    "uncle",
    "friends",
    "neighbour",
    "neighbours",
    "teacher",
    "engineer",
    "journalist",
    "lawyer",
    "children",
    "students",
    "anna",
    "leila",
    "maria",
    "nina",
    "omar",
    "david",
    "karim",
    "adam",
]
PAST = ["yesterday", "this_morning", "last_week", "last_month", "two_days_ago", "yesterday_evening", "last_year"]
HABIT = ["every_day", "every_week", "every_morning", "every_evening", "on_sundays", "every_month"]
FUTURE = ["tomorrow", "next_week", "this_evening", "next_month", "on_saturday", "day_after_tomorrow", "next_year"]
PLACES = ["city", "village", "capital", "sea", "mountains", "south"]
REASONS = ["holiday", "little_time", "guests_tomorrow", "talk", "long_week", "friend_asked"]
WHENS = ["guests_arrive", "holidays_begin", "work_over", "others_leave", "new_year"]
IFS = ["enough_time", "others_agree", "goes_well", "no_objection", "necessary"]
CLAIMS = ["i_think", "everyone_knows", "we_heard", "clear", "newspaper"]
QUALITIES = ["easy", "difficult", "important", "interesting", "useful"]
THING_QUALITIES = ["important", "interesting", "useful"]
QUESTIONS = ["when", "where", "with_whom"]

# Form -> what fills its slots `time`, `place` and `extra`; an empty list is a slot the form does not have.
FORMS: dict[str, tuple[list[str], list[str], list[str]]] = {
    "present": (HABIT, [], []),
    "past": (PAST, PLACES, []),
    "future": (FUTURE, [], []),
    "negation": (PAST, [], []),
    "yes_no": (PAST, [], []),
    "wh": ([], [], QUESTIONS),
    "because": ([], [], REASONS),
    "when": ([], [], WHENS),
    "if": ([], [], IFS),
    "that": (PAST, [], CLAIMS),
    "and": (PAST, [], []),
    "compare_doing": ([], [], QUALITIES),
    "compare_things": ([], [], THING_QUALITIES),
    "must": (FUTURE, [], []),
    "impersonal": ([], PLACES, QUALITIES),
    "try": (PAST, [], []),
}
TWO_ACTIVITIES = ("and", "compare_doing", "compare_things")


@dataclass(frozen=True)
class Frame:
    """Everything a sentence says except its topic."""

    form: str
    subject: str
    time: str
    place: str
    extra: str


@dataclass(frozen=True)
class Scene:
    """The meaning of one sentence; `second` only matters to the forms in `TWO_ACTIVITIES`."""

    frame: Frame
    first: Activity
    second: Activity
