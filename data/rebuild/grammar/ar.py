"""Modern Standard Arabic, unvocalised.

Verbal clauses put the verb first, where it stays singular before a noun; a pronoun subject is left to the verb.
"""

from grammar.scenes import Activity, Scene
from grammar.table import table, words

# verb | past: he | she | they | present: he | verbal noun | preposition | present stem of the plural | jussive
# The last two cells are only filled where they differ from the present.
VERBS = table(
    """
    buy | اشترى | اشترت | اشتروا | يشتري | شراء | | يشتر | يشتر; cook | طبخ | طبخت | طبخوا | يطبخ | طبخ
    bake | خبز | خبزت | خبزوا | يخبز | خبز; taste | تذوق | تذوقت | تذوقوا | يتذوق | تذوق
    eat | أكل | أكلت | أكلوا | يأكل | أكل; drink | شرب | شربت | شربوا | يشرب | شرب
    prepare | أعد | أعدت | أعدوا | يعد | إعداد; cut | قطع | قطعت | قطعوا | يقطع | تقطيع
    choose | اختار | اختارت | اختاروا | يختار | اختيار | | | يختر; describe | وصف | وصفت | وصفوا | يصف | وصف
    photograph | صور | صورت | صوروا | يصور | تصوير; discuss | ناقش | ناقشت | ناقشوا | يناقش | مناقشة
    look_for | بحث | بحثت | بحثوا | يبحث | البحث | عن; show | عرض | عرضت | عرضوا | يعرض | عرض
    draw | رسم | رسمت | رسموا | يرسم | رسم; check | فحص | فحصت | فحصوا | يفحص | فحص
    measure | قاس | قاست | قاسوا | يقيس | قياس | | | يقس; observe | راقب | راقبت | راقبوا | يراقب | مراقبة
    predict | توقع | توقعت | توقعوا | يتوقع | توقع; listen_to | استمع | استمعت | استمعوا | يستمع | الاستماع | إلى
    study | درس | درست | درسوا | يدرس | دراسة; explain | شرح | شرحت | شرحوا | يشرح | شرح
    watch | شاهد | شاهدت | شاهدوا | يشاهد | مشاهدة; win | كسب | كسبت | كسبوا | يكسب | كسب
    organise | نظم | نظمت | نظموا | ينظم | تنظيم; throw | رمى | رمت | رموا | يرمي | رمي | | يرم | يرم
    catch | التقط | التقطت | التقطوا | يلتقط | التقاط; clean | نظف | نظفت | نظفوا | ينظف | تنظيف
    take | تناول | تناولت | تناولوا | يتناول | تناول; treat | عالج | عالجت | عالجوا | يعالج | معالجة
    pack | حزم | حزمت | حزموا | يحزم | حزم; book | حجز | حجزت | حجزوا | يحجز | حجز
    plan | خطط | خططت | خططوا | يخطط | التخطيط | ل; wait_for | انتظر | انتظرت | انتظروا | ينتظر | انتظار
    play | عزف | عزفت | عزفوا | يعزف | العزف | على; sing | غنى | غنت | غنوا | يغني | غناء | | يغن | يغن
    compose | ألف | ألفت | ألفوا | يؤلف | تأليف; record | سجل | سجلت | سجلوا | يسجل | تسجيل
    practise | تدرب | تدربت | تدربوا | يتدرب | التدرب | على""",
    8,
)

THINGS = words(
    """
    soup | الحساء; bread | الخبز; cheese | الجبن; salad | السلطة; rice | الأرز; cake | الكعكة; butter | الزبدة
    vegetables | الخضروات; tea | الشاي; coffee | القهوة; breakfast | الفطور; milk | الحليب; honey | العسل
    potatoes | البطاطس; apples | التفاح; juice | العصير; pizza | البيتزا; recipe | وصفة الطعام
    forecast | توقعات الطقس; storm | العاصفة; rain | المطر; snow | الثلج; fog | الضباب; rainbow | قوس قزح
    clouds | الغيوم; wind | الرياح; temperature | درجة الحرارة; thunder | الرعد; lightning | البرق; heat | الحر
    sky | السماء; frost | الصقيع; humidity | الرطوبة; climate | المناخ; barometer | البارومتر; umbrella | المظلة
    match | المباراة; race | السباق; tournament | البطولة; final | المباراة النهائية; training | التدريب; ball | الكرة
    racket | المضرب; medal | الميدالية; trophy | الكأس; competition | المسابقة; team | الفريق; stadium | الملعب
    score | النتيجة; gloves | القفازات; net | الشبكة; jersey | القميص الرياضي; marathon | الماراثون
    helmet | الخوذة; gym | الصالة الرياضية
    medicine | الدواء; ointment | المرهم; vitamins | الفيتامينات; bandage | الضمادة; thermometer | ميزان الحرارة
    wound | الجرح; illness | المرض; pain | الألم; symptoms | الأعراض; blood_pressure | ضغط الدم; pulse | النبض
    diet | النظام الغذائي; treatment | العلاج; diagnosis | التشخيص; prescription | الوصفة الطبية; vaccine | اللقاح
    clinic | العيادة; pills | الأقراص
    ticket | التذكرة; suitcase | الحقيبة; passport | جواز السفر; map | الخريطة; train | القطار; bus | الحافلة
    hotel | الفندق; route | الطريق; trip | الرحلة; visa | التأشيرة; luggage | الأمتعة; backpack | حقيبة الظهر
    guidebook | الدليل السياحي; airport | المطار; station | المحطة; island | الجزيرة; tent | الخيمة
    flight | رحلة الطيران; harbour | الميناء
    guitar | الجيتار; piano | البيانو; violin | الكمان; flute | الناي; drum | الطبل; trumpet | البوق
    song | الأغنية; melody | اللحن; concert | الحفلة الموسيقية; album | الألبوم; choir | الجوقة
    orchestra | الأوركسترا; rhythm | الإيقاع; lyrics | كلمات الأغنية; sheet_music | النوتة الموسيقية
    symphony | السيمفونية; opera | الأوبرا; microphone | الميكروفون"""
)

# subject | form | m, f or p | suffix, for the pronouns only
SUBJECTS = table(
    """
    he | هو | m | ه; she | هي | f | ها; they | هم | p | هم; mother | أمي | f; father | أبي | m; sister | أختي | f
    brother | أخي | m; grandmother | جدتي | f; grandfather | جدي | m; aunt | عمتي | f; uncle | عمي | m
    friends | أصدقائي | p; neighbour | جارنا | m; neighbours | الجيران | p; teacher | المعلمة | f
    engineer | المهندس | m; journalist | الصحفية | f; lawyer | المحامي | m; children | الأطفال | p
    students | الطلاب | p; anna | آنا | f; leila | ليلى | f; maria | ماريا | f; nina | نينا | f; omar | عمر | m
    david | داود | m; karim | كريم | m; adam | آدم | m""",
    3,
)

SLOTS = words(
    """
    yesterday | أمس; this_morning | هذا الصباح; last_week | في الأسبوع الماضي; last_month | في الشهر الماضي
    two_days_ago | قبل يومين; yesterday_evening | مساء أمس; last_year | في العام الماضي; every_day | كل يوم
    every_week | كل أسبوع; every_morning | كل صباح; every_evening | كل مساء; on_sundays | كل يوم أحد
    every_month | كل شهر; tomorrow | غدًا; next_week | في الأسبوع القادم; this_evening | هذا المساء
    next_month | في الشهر القادم; on_saturday | يوم السبت; day_after_tomorrow | بعد غد; next_year | في العام القادم
    city | في المدينة; village | في القرية; capital | في العاصمة; sea | قرب البحر; mountains | في الجبال
    south | في الجنوب
    holiday | اليوم عطلة; little_time | الوقت المتبقي قليل; guests_tomorrow | ضيوفًا سيأتون غدًا
    talk | الجميع يتحدثون عن ذلك; long_week | الأسبوع كان طويلًا; friend_asked | صديقًا طلب ذلك
    guests_arrive | عندما يصل الضيوف; holidays_begin | عندما تبدأ العطلة; work_over | عندما ينتهي العمل
    others_leave | عندما يغادر الآخرون; new_year | عندما يبدأ العام الجديد
    enough_time | إذا كان هناك وقت كاف; others_agree | إذا وافق الآخرون; goes_well | إذا سار كل شيء على ما يرام
    no_objection | إذا لم يعترض أحد; necessary | إذا كان ذلك ضروريًا
    i_think | أظن أن; everyone_knows | الجميع يعرفون أن; we_heard | سمعنا أن; clear | من الواضح أن
    newspaper | تقول الصحيفة إن
    when | متى; where | أين; with_whom | مع من"""
)
POSITIVE = words("easy | السهل; difficult | الصعب; important | المهم; interesting | المثير للاهتمام; useful | المفيد")
COMPARATIVE = words(
    "easy | أسهل; difficult | أصعب; important | أهم; interesting | أكثر إثارة للاهتمام; useful | أكثر فائدة"
)


def goal(activity: Activity) -> str:
    """Return the object, after the preposition that the verb asks for."""
    preposition, phrase = VERBS[activity.verb][5], THINGS[activity.thing]
    if preposition == "ل":  # it swallows the first letter of the article
        return preposition + phrase[1:]
    return f"{preposition} {phrase}".strip()


def doing(activity: Activity) -> str:
    """Return the verbal noun with its object."""
    return f"{VERBS[activity.verb][4]} {goal(activity)}"


def past(activity: Activity, gender: str) -> str:
    """Return the past tense of the verb for `m`, `f` or `p`."""
    return VERBS[activity.verb]["mfp".index(gender)]


def present(activity: Activity, gender: str, ending: str) -> str:
    """Return the present; `ending` closes the plural: `ون` in the indicative, `وا` in subjunctive and jussive."""
    cells = VERBS[activity.verb]
    if gender == "p":
        return (cells[6] or cells[3]) + ending
    return cells[3] if gender == "m" else "ت" + cells[3][1:]


def jussive(activity: Activity, gender: str) -> str:
    """Return the form after `لم`."""
    if gender == "p":
        return present(activity, gender, "وا")
    cell = VERBS[activity.verb][7] or VERBS[activity.verb][3]
    return cell if gender == "m" else "ت" + cell[1:]


def toward(joined: str, alone: str, person: str) -> str:
    """Return a preposition with the subject, joined to the suffix of a pronoun."""
    subject, _, suffix = SUBJECTS[person]
    return f"{joined}{suffix}" if suffix else f"{alone} {subject}"


def render(scene: Scene) -> str:
    """Say the scene in Arabic."""
    frame, first = scene.frame, scene.first
    subject, gender, suffix = SUBJECTS[frame.subject]
    time, place, extra = (SLOTS.get(key, "") for key in (frame.time, frame.place, frame.extra))
    # Before its noun the verb agrees in gender only; behind it, or alone, in number too.
    before = gender if suffix or gender != "p" else "m"
    after_verb = "" if suffix else f" {subject}"
    thing = goal(first)
    subjunctive = f"أن {present(first, gender, 'وا')} {thing}"
    did = f"{past(first, before)}{after_verb} {thing}"
    future = f"س{present(first, before, 'ون')}{after_verb} {thing}"
    match frame.form:
        case "present":
            return f"{subject} {present(first, gender, 'ون')} {thing} {time}."
        case "past":
            return f"{did} {place} {time}."
        case "future":
            return f"{future} {time}."
        case "negation":
            return f"لم {jussive(first, before)}{after_verb} {thing} {time}."
        case "yes_no":
            return f"هل {did} {time}؟"
        case "wh":
            return f"{extra} {future}؟"
        case "because":
            want = {"m": "يريد", "f": "تريد", "p": "يريدون"}[gender]
            return f"{subject} {want} {subjunctive} لأن {extra}."
        case "when":
            return f"{extra}، {future}."
        case "if":
            return f"{extra}، ف{future}."
        case "that":
            return f"{extra}{suffix or after_verb} {past(first, gender)} {thing} {time}."
        case "and":
            return f"{did} و{past(scene.second, gender)} {goal(scene.second)} {time}."
        case "compare_doing":
            quality = f"{COMPARATIVE[frame.extra]} من {doing(scene.second)}"
            return f"بالنسبة {toward('إلي', 'إلى', frame.subject)}، {doing(first)} {quality}."
        case "compare_things":
            quality = f"{COMPARATIVE[frame.extra]} من {THINGS[scene.second.thing]}"
            return f"بالنسبة {toward('إلي', 'إلى', frame.subject)}، {THINGS[first.thing]} {quality}."
        case "must":
            return f"يجب {toward('علي', 'على', frame.subject)} {subjunctive} {time}."
        case "impersonal":
            return f"من {POSITIVE[frame.extra]} {doing(first)} {place}."
        case "try":
            tried = {"m": "حاول", "f": "حاولت", "p": "حاولوا"}[before]
            return f"{tried}{after_verb} {subjunctive} {time}."
    raise ValueError(frame.form)
