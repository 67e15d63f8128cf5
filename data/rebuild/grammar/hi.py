"""Hindi.

Parents, grandparents, aunts and uncles take the respectful plural, as they do in speech.
"""

from grammar.scenes import Activity, Scene
from grammar.table import table, words

# verb | stem | word between object and verb | postposition of the object | agreement in the perfective, where it
# does not follow the object: the gender of the noun in the compound (`की जाँच करना`), or `m` after `को`
VERBS = table(
    """
    buy | खरीद; cook | पका; bake | कर | बेक; taste | चख; eat | खा; drink | पी; prepare | कर | तैयार; cut | काट
    choose | चुन; describe | कर | वर्णन | का | m; photograph | ले | तस्वीर | की | f; discuss | कर | चर्चा | पर | f
    look_for | ढूँढ; show | दिखा; draw | बना | चित्र | का | m; check | कर | जाँच | की | f; measure | माप
    observe | देख | ध्यान से | को | m; predict | कर | भविष्यवाणी | की | f; listen_to | सुन
    study | कर | अध्ययन | का | m; explain | समझा; watch | देख; win | जीत; organise | कर | आयोजन | का | m
    throw | फेंक; catch | पकड़; clean | कर | साफ़; take | ले; treat | कर | इलाज | का | m; pack | कर | पैक
    book | कर | बुक; plan | बना | योजना | की | f; wait_for | कर | इंतज़ार | का | m; play | बजा; sing | गा
    compose | कर | रचना | की | f; record | कर | रिकॉर्ड; practise | कर | अभ्यास | का | m""",
    4,
)

# stem | perfective m, f, mp, fp | stem of subjunctive and future singular | of the future plural
IRREGULAR = table(
    """
    कर | किया की किए कीं | करे | करें; ले | लिया ली लिए लीं | ले | लें; पी | पिया पी पिए पीं | पिए | पिएँ""",
    3,
)

# thing | direct form | gender and number | oblique form where it differs
THINGS = table(
    """
    soup | सूप | m; bread | ब्रेड | f; cheese | पनीर | m; salad | सलाद | m; rice | चावल | m; cake | केक | m
    butter | मक्खन | m; vegetables | सब्ज़ियाँ | fp | सब्ज़ियों; tea | चाय | f; coffee | कॉफ़ी | f
    breakfast | नाश्ता | m | नाश्ते; milk | दूध | m; honey | शहद | m; potatoes | आलू | mp | आलुओं
    apples | सेब | mp | सेबों; juice | जूस | m; pizza | पिज़्ज़ा | m | पिज़्ज़े; recipe | रेसिपी | f
    forecast | मौसम का पूर्वानुमान | m | मौसम के पूर्वानुमान; storm | तूफ़ान | m; rain | बारिश | f; snow | बर्फ़ | f
    fog | कोहरा | m | कोहरे; rainbow | इंद्रधनुष | m; clouds | बादल | mp | बादलों; wind | हवा | f
    temperature | तापमान | m; thunder | बादलों की गरज | f; lightning | बिजली | f; heat | गर्मी | f; sky | आसमान | m
    frost | पाला | m | पाले; humidity | नमी | f; climate | जलवायु | f; barometer | बैरोमीटर | m
    umbrella | छाता | m | छाते
    match | मैच | m; race | दौड़ | f; tournament | टूर्नामेंट | m; final | फ़ाइनल | m; training | प्रशिक्षण | m
    ball | गेंद | f; racket | रैकेट | m; medal | पदक | m; trophy | ट्रॉफ़ी | f; competition | प्रतियोगिता | f
    team | टीम | f; stadium | स्टेडियम | m; score | स्कोर | m; gloves | दस्ताने | mp | दस्तानों; net | जाल | m
    jersey | जर्सी | f; marathon | मैराथन | f; helmet | हेलमेट | m; gym | जिम | m
    medicine | दवा | f; ointment | मरहम | m; vitamins | विटामिन | mp | विटामिनों; bandage | पट्टी | f
    thermometer | थर्मामीटर | m; wound | घाव | m; illness | बीमारी | f; pain | दर्द | m
    symptoms | लक्षण | mp | लक्षणों; blood_pressure | रक्तचाप | m; pulse | नब्ज़ | f; diet | आहार | m
    treatment | उपचार | m; diagnosis | निदान | m; prescription | डॉक्टर की पर्ची | f; vaccine | टीका | m | टीके
    clinic | क्लिनिक | m; pills | गोलियाँ | fp | गोलियों
    ticket | टिकट | m; suitcase | सूटकेस | m; passport | पासपोर्ट | m; map | नक्शा | m | नक्शे; train | ट्रेन | f
    bus | बस | f; hotel | होटल | m; route | रास्ता | m | रास्ते; trip | यात्रा | f; visa | वीज़ा | m
    luggage | सामान | m; backpack | बैकपैक | m; guidebook | गाइडबुक | f; airport | हवाई अड्डा | m | हवाई अड्डे
    station | स्टेशन | m; island | द्वीप | m; tent | तंबू | m; flight | उड़ान | f; harbour | बंदरगाह | m
    guitar | गिटार | m; piano | पियानो | m; violin | वायलिन | m; flute | बाँसुरी | f; drum | ढोल | m
    trumpet | तुरही | f; song | गीत | m; melody | धुन | f; concert | कॉन्सर्ट | m; album | एल्बम | m
    choir | गायन मंडली | f; orchestra | ऑर्केस्ट्रा | m; rhythm | लय | f; lyrics | गाने के बोल | mp | गाने के बोलों
    sheet_music | स्वरलिपि | f; symphony | सिम्फ़नी | f; opera | ओपेरा | m; microphone | माइक्रोफ़ोन | m""",
    3,
)

# subject | direct form | gender and number | with ने | with को | with के लिए
# An empty cell is the direct form with the postposition behind it.
SUBJECTS = table(
    """
    he | वह | m | उसने | उसे | उसके लिए; she | वह | f | उसने | उसे | उसके लिए; they | वे | mp | उन्होंने | उन्हें | उनके लिए
    mother | मेरी माँ | fp; father | मेरे पिता | mp; sister | मेरी बहन | f
    brother | मेरा भाई | m | मेरे भाई ने | मेरे भाई को | मेरे भाई के लिए; grandmother | मेरी दादी | fp
    grandfather | मेरे दादा | mp; aunt | मेरी बुआ | fp; uncle | मेरे चाचा | mp
    friends | मेरे दोस्त | mp | मेरे दोस्तों ने | मेरे दोस्तों को | मेरे दोस्तों के लिए
    neighbour | हमारा पड़ोसी | m | हमारे पड़ोसी ने | हमारे पड़ोसी को | हमारे पड़ोसी के लिए
    neighbours | पड़ोसी | mp | पड़ोसियों ने | पड़ोसियों को | पड़ोसियों के लिए; teacher | अध्यापिका | f; engineer | इंजीनियर | m
    journalist | पत्रकार | f; lawyer | वकील | m; children | बच्चे | mp | बच्चों ने | बच्चों को | बच्चों के लिए
    students | छात्र | mp | छात्रों ने | छात्रों को | छात्रों के लिए; anna | अन्ना | f; leila | लैला | f; maria | मारिया | f
    nina | नीना | f; omar | उमर | m; david | डेविड | m; karim | करीम | m; adam | एडम | m""",
    5,
)

SLOTS = words(
    """
    yesterday | कल; this_morning | आज सुबह; last_week | पिछले हफ़्ते; last_month | पिछले महीने
    two_days_ago | दो दिन पहले; yesterday_evening | कल शाम; last_year | पिछले साल; every_day | हर दिन
    every_week | हर हफ़्ते; every_morning | हर सुबह; every_evening | हर शाम; on_sundays | हर रविवार
    every_month | हर महीने; tomorrow | कल; next_week | अगले हफ़्ते; this_evening | आज शाम; next_month | अगले महीने
    on_saturday | शनिवार को; day_after_tomorrow | परसों; next_year | अगले साल
    city | शहर में; village | गाँव में; capital | राजधानी में; sea | समुद्र के पास; mountains | पहाड़ों में
    south | दक्षिण में
    holiday | आज छुट्टी है; little_time | समय कम बचा है; guests_tomorrow | कल मेहमान आएँगे
    talk | सब लोग इसकी बात कर रहे हैं; long_week | यह हफ़्ता लंबा था; friend_asked | एक दोस्त ने इसके लिए कहा था
    guests_arrive | मेहमान आएँगे; holidays_begin | छुट्टियाँ शुरू होंगी; work_over | काम खत्म होगा
    others_leave | बाकी लोग चले जाएँगे; new_year | नया साल शुरू होगा
    enough_time | पर्याप्त समय होगा; others_agree | बाकी लोग मान जाएँगे; goes_well | सब कुछ ठीक रहेगा
    no_objection | किसी को आपत्ति नहीं होगी; necessary | ज़रूरत होगी
    i_think | मुझे लगता है; everyone_knows | सब जानते हैं; we_heard | हमने सुना है; clear | साफ़ है
    newspaper | अख़बार में लिखा है
    when | कब; where | कहाँ; with_whom | किसके साथ"""
)
QUALITIES = words("easy | आसान; difficult | मुश्किल; important | महत्वपूर्ण; interesting | दिलचस्प; useful | उपयोगी")

FORMS = ("m", "f", "mp", "fp")
VOWEL_SIGN = "ा"


def goal(activity: Activity) -> str:
    """Return the object with its postposition."""
    direct, _, oblique = THINGS[activity.thing]
    postposition = VERBS[activity.verb][2]
    return f"{oblique or direct} {postposition}" if postposition else direct


def verb(activity: Activity, form: str) -> str:
    """Return the inflected verb, after the invariable word of a compound."""
    return f"{VERBS[activity.verb][1]} {form}".strip()


def ending(stem: str, form: str) -> str:
    """Close an adjective-like stem: `ता`, `ती`, `ते`; the participle itself does not mark the feminine plural."""
    return stem + {"m": "ा", "f": "ी", "mp": "े", "fp": "ी"}[form]


def perfective(activity: Activity, negated: bool = False) -> str:
    """Return the perfective, which agrees with the object or with the noun inside the verb."""
    stem, _, _, fixed = VERBS[activity.verb]
    index = FORMS.index(fixed or THINGS[activity.thing][1])
    if stem in IRREGULAR:
        form = IRREGULAR[stem][0].split()[index]
    elif stem.endswith(VOWEL_SIGN):
        form = stem + ("या", "ई", "ए", "ईं")[index]
    else:
        form = stem + ("ा", "ी", "े", "ीं")[index]
    return verb(activity, f"नहीं {form}" if negated else form)


def future(activity: Activity, form: str) -> str:
    """Return the future, which agrees with the subject."""
    stem = VERBS[activity.verb][0]
    plural = form.endswith("p")
    if stem in IRREGULAR:
        base = IRREGULAR[stem][2 if plural else 1]
    elif stem.endswith(VOWEL_SIGN):
        base = stem + ("एँ" if plural else "ए")
    else:
        base = stem + ("ें" if plural else "े")
    return verb(activity, ending(f"{base}ग", form))


def infinitive(activity: Activity, form: str = "m") -> str:
    """Return the infinitive; `mp` is also its oblique form."""
    return verb(activity, ending(f"{VERBS[activity.verb][0]}न", form))


def render(scene: Scene) -> str:
    """Say the scene in Hindi."""
    frame, first = scene.frame, scene.first
    subject, form, ergative, dative, benefactive = SUBJECTS[frame.subject]
    ergative, dative = ergative or f"{subject} ने", dative or f"{subject} को"
    benefactive = benefactive or f"{subject} के लिए"
    time, place, extra = (SLOTS.get(key, "") for key in (frame.time, frame.place, frame.extra))
    thing, plural = goal(first), form.endswith("p")
    be = "हैं" if plural else "है"
    did, will = f"{thing} {perfective(first)}", f"{thing} {future(first, form)}"
    match frame.form:
        case "present":
            stem = VERBS[first.verb][0]
            return f"{subject} {time} {thing} {verb(first, ending(f'{stem}त', form))} {be}।"
        case "past":
            return f"{time} {ergative} {place} {did}।"
        case "future":
            return f"{subject} {time} {will}।"
        case "negation":
            return f"{ergative} {time} {thing} {perfective(first, negated=True)}।"
        case "yes_no":
            return f"क्या {ergative} {time} {did}?"
        case "wh":
            return f"{subject} {extra} {will}?"
        case "because":
            return f"{subject} {thing} {infinitive(first)} {ending('चाहत', form)} {be}, क्योंकि {extra}।"
        case "when":
            return f"जब {extra}, तब {subject} {will}।"
        case "if":
            return f"अगर {extra}, तो {subject} {will}।"
        case "that":
            return f"{extra} कि {ergative} {time} {did}।"
        case "and":
            return f"{time} {ergative} {did} और {goal(scene.second)} {perfective(scene.second)}।"
        case "compare_doing":
            other = f"{goal(scene.second)} {infinitive(scene.second, 'mp')}"
            return f"{benefactive} {thing} {infinitive(first)} {other} से ज़्यादा {QUALITIES[frame.extra]} है।"
        case "compare_things":
            direct, number, _ = THINGS[first.thing]
            other, _, oblique = THINGS[scene.second.thing]
            verb_form = "हैं" if number.endswith("p") else "है"
            return f"{benefactive} {direct} {oblique or other} से ज़्यादा {QUALITIES[frame.extra]} {verb_form}।"
        case "must":
            agreement = VERBS[first.verb][3] or THINGS[first.thing][1]
            verb_form = "हैं" if agreement.endswith("p") else "है"
            return f"{dative} {time} {thing} {infinitive(first, agreement)} {verb_form}।"
        case "impersonal":
            return f"{place} {thing} {infinitive(first)} {QUALITIES[frame.extra]} है।"
        case "try":
            return f"{ergative} {time} {thing} {infinitive(first, 'mp')} की कोशिश की।"
    raise ValueError(frame.form)
