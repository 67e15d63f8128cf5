"""Chinese (Mandarin, simplified characters)."""

from grammar.scenes import Activity, Scene
from grammar.table import words

VERBS = words(
    """
    buy | 买; cook | 煮; bake | 烤; taste | 品尝; eat | 吃; drink | 喝; prepare | 准备; cut | 切; choose | 选
    describe | 描述; photograph | 拍摄; discuss | 讨论; look_for | 找; show | 展示; draw | 画; check | 检查
    measure | 测量; observe | 观察; predict | 预测; listen_to | 听; study | 研究; explain | 解释; watch | 看
    win | 赢得; organise | 组织; throw | 扔; catch | 接; clean | 清洁; take | 服用; treat | 治疗; pack | 收拾
    book | 预订; plan | 计划; wait_for | 等; play | 演奏; sing | 唱; compose | 创作; record | 录制; practise | 练习"""
)

THINGS = words(
    """
    soup | 汤; bread | 面包; cheese | 奶酪; salad | 沙拉; rice | 米饭; cake | 蛋糕; butter | 黄油; vegetables | 蔬菜
    tea | 茶; coffee | 咖啡; breakfast | 早餐; milk | 牛奶; honey | 蜂蜜; potatoes | 土豆; apples | 苹果
    juice | 果汁; pizza | 披萨; recipe | 食谱
    forecast | 天气预报; storm | 暴风雨; rain | 降雨; snow | 雪; fog | 大雾; rainbow | 彩虹; clouds | 云彩; wind | 风
    temperature | 气温; thunder | 雷声; lightning | 闪电; heat | 高温; sky | 天空; frost | 霜冻; humidity | 湿度
    climate | 气候; barometer | 气压计; umbrella | 雨伞
    match | 比赛; race | 赛跑; tournament | 锦标赛; final | 决赛; training | 训练; ball | 球; racket | 球拍
    medal | 奖牌; trophy | 奖杯; competition | 竞赛; team | 球队; stadium | 体育场; score | 比分; gloves | 手套
    net | 球网; jersey | 球衣; marathon | 马拉松; helmet | 头盔; gym | 体育馆
    medicine | 药; ointment | 药膏; vitamins | 维生素; bandage | 绷带; thermometer | 体温计; wound | 伤口
    illness | 疾病; pain | 疼痛; symptoms | 症状; blood_pressure | 血压; pulse | 脉搏; diet | 饮食方案
    treatment | 疗法; diagnosis | 诊断; prescription | 处方; vaccine | 疫苗; clinic | 诊所; pills | 药片
    ticket | 票; suitcase | 行李箱; passport | 护照; map | 地图; train | 火车; bus | 公交车; hotel | 酒店
    route | 路线; trip | 旅行; visa | 签证; luggage | 行李; backpack | 背包; guidebook | 旅游指南; airport | 机场
    station | 车站; island | 岛; tent | 帐篷; flight | 航班; harbour | 港口
    guitar | 吉他; piano | 钢琴; violin | 小提琴; flute | 长笛; drum | 鼓; trumpet | 小号; song | 歌曲
    melody | 旋律; concert | 音乐会; album | 专辑; choir | 合唱团; orchestra | 管弦乐团; rhythm | 节奏
    lyrics | 歌词; sheet_music | 乐谱; symphony | 交响乐; opera | 歌剧; microphone | 麦克风"""
)

SUBJECTS = words(
    """
    he | 他; she | 她; they | 他们; mother | 我妈妈; father | 我爸爸; sister | 我姐姐; brother | 我哥哥
    grandmother | 我奶奶; grandfather | 我爷爷; aunt | 我姑姑; uncle | 我叔叔; friends | 我的朋友们
    neighbour | 我们的邻居; neighbours | 邻居们; teacher | 老师; engineer | 工程师; journalist | 记者
    lawyer | 律师; children | 孩子们; students | 学生们; anna | 安娜; leila | 莱拉; maria | 玛丽亚; nina | 尼娜
    omar | 奥马尔; david | 大卫; karim | 卡里姆; adam | 亚当"""
)

SLOTS = words(
    """
    yesterday | 昨天; this_morning | 今天早上; last_week | 上周; last_month | 上个月; two_days_ago | 两天前
    yesterday_evening | 昨天晚上; last_year | 去年; every_day | 每天; every_week | 每周; every_morning | 每天早上
    every_evening | 每天晚上; on_sundays | 每个星期天; every_month | 每个月; tomorrow | 明天; next_week | 下周
    this_evening | 今天晚上; next_month | 下个月; on_saturday | 星期六; day_after_tomorrow | 后天; next_year | 明年
    city | 在城里; village | 在村里; capital | 在首都; sea | 在海边; mountains | 在山里; south | 在南方
    holiday | 今天是节日; little_time | 剩下的时间不多; guests_tomorrow | 明天有客人来
    talk | 大家都在谈论这件事; long_week | 这个星期很漫长; friend_asked | 有个朋友提出了请求
    guests_arrive | 客人到的时候; holidays_begin | 假期开始的时候; work_over | 工作结束的时候
    others_leave | 其他人离开的时候; new_year | 新年开始的时候
    enough_time | 如果时间够; others_agree | 如果其他人同意; goes_well | 如果一切顺利
    no_objection | 如果没有人反对; necessary | 如果有必要
    i_think | 我觉得; everyone_knows | 大家都知道; we_heard | 我们听说; clear | 很明显，; newspaper | 报纸上说，
    when | 什么时候会; where | 会在哪里; with_whom | 会和谁一起"""
)
QUALITIES = words("easy | 容易; difficult | 难; important | 重要; interesting | 有意思; useful | 有用")


def do(activity: Activity, aspect: str = "") -> str:
    """Return verb and object, with the aspect particle between them."""
    return f"{VERBS[activity.verb]}{aspect}{THINGS[activity.thing]}"


def render(scene: Scene) -> str:
    """Say the scene in Chinese."""
    frame = scene.frame
    subject = SUBJECTS[frame.subject]
    time, place, extra = (SLOTS.get(key, "") for key in (frame.time, frame.place, frame.extra))
    plain, done = do(scene.first), do(scene.first, "了")
    match frame.form:
        case "present":
            return f"{subject}{time}都{plain}。"
        case "past":
            return f"{time}{subject}{place}{done}。"
        case "future":
            return f"{subject}{time}要{plain}。"
        case "negation":
            return f"{subject}{time}没有{plain}。"
        case "yes_no":
            return f"{subject}{time}{plain}了吗？"
        case "wh":
            return f"{subject}{extra}{plain}？"
        case "because":
            return f"{subject}想{plain}，因为{extra}。"
        case "when" | "if":
            return f"{extra}，{subject}会{plain}。"
        case "that":
            return f"{extra}{subject}{time}{done}。"
        case "and":
            return f"{time}{subject}{done}，还{do(scene.second, '了')}。"
        case "compare_doing":
            return f"对{subject}来说，{plain}比{do(scene.second)}更{QUALITIES[frame.extra]}。"
        case "compare_things":
            first, second = THINGS[scene.first.thing], THINGS[scene.second.thing]
            return f"对{subject}来说，{first}比{second}更{QUALITIES[frame.extra]}。"
        case "must":
            return f"{subject}{time}必须{plain}。"
        case "impersonal":
            return f"{place}{plain}很{QUALITIES[frame.extra]}。"
        case "try":
            return f"{subject}{time}试着{plain}。"
    raise ValueError(frame.form)
