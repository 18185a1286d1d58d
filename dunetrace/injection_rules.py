"""The rules of the injection scan, as data: a label, how sure it is, the phrases it starts from, what must follow.

Phrases are short and our own, in lower case with single spaces and no accents, as `injection.plain` leaves a text.
"""

from __future__ import annotations

import re
from typing import NamedTuple

STRONG, WEAK = 3, 1

# Letters, digits and the apostrophe stay, other bytes become blanks: cheap words, to know which phrases to look for.
_WORD_CHARS = bytes(c if chr(c) == "'" or (c < 128 and chr(c).isalnum()) else ord(" ") for c in range(256))


class Rule(NamedTuple):
    """One rule; several may share a label."""

    label: str
    weight: int
    phrases: tuple[tuple[list[bytes], str], ...]  # lower case, single spaces, no accents; with its first word, if any
    tail: re.Pattern[str]  # matched right behind the phrase


def _rule(label: str, weight: int, phrases: str, tail: str = "", separator: str = "|") -> Rule:
    table = tuple((words(phrase)[:1], phrase) for phrase in phrases.split(separator))
    return Rule(label, weight, table, re.compile(tail))


def words(text: str) -> list[bytes]:
    """The cheap words of a text."""
    return text.encode("ascii", "replace").translate(_WORD_CHARS).split()


_RULE_NOUN = (
    r"(?:instruction|direction|directive|rule|guideline|prompt|programming|polic(?:y|ies)|restriction"
    r"|limitation|safety"
    r"|filter|identity|constraint|protocol|conversation|istruzion|instruccion|anweisung"
    r"|regel|regole|regla|consigne|instrucoes|richtlinie|vorgabe|vorschrift|restriktion|indicacion|directri|diretri"
    r"|guard ?rail|input\b|inputs\b|norma|linee guida|zasad|instrukcj|polece|wytyczn|instructie|richtlijn"
    r"|talimat|kural|instruksi)"
)
_LIMIT = (
    r"(?:restriction|limit|filter|rule|censor|guideline|ethic|moral|boundar|polic|consequence|safety|law|warning"
    r"|disclaimer|refus|restric|einschrankung|filtr|regel|regole|regla|regle)"
)
_HIDDEN_TEXT = (
    r"(?:system[ -]?prompt|system (?:message|instruction)|(?:hidden|initial|original|secret|internal) (?:prompt"
    r"|instruction"
    r"|configuration|message)|(?:words|text|everything|lines?|sentences?|content|all) (?:written )?(?:above|preceding)"
    r"|your (?:\w{1,14} ){0,2}(?:rules|guidelines|directives|configuration)\b|(?:first|previous) (?:system )?message"
    r"|(?:instructions|rules) (?:you were|you are|you have|were you|are you|have you)"
    r"|starting with ['\"]?you are|instructions you were given|prompt (?:de |di |do |del )?(?:sistem|system)"
    r"|system-?prompt"
    r"|(?:your|tes|tus|le tue|deine) (?:\w{1,16} ){0,2}(?:instruc\w*|istruzioni|prompt|anweisungen|directives))"
)
_GAP = r"[^.!?\n]{0,60}?"

RULES = (
    _rule(
        "ignore_instructions",
        STRONG,
        "ignore|ignoring|disregard|disregarding|forget|forgetting|bypass|overlook|let go of|do not follow"
        "|stop following"
        "|ignorez|ignora|ignorare|ignoriere|ignorieren sie|vergiss|vergessen sie|oubliez|oublie|olvida"
        "|dimentica|ignore as|zignoruj|pomin|negeer|vergeet|abaikan|onceki|tum onceki|missachte|omite"
        "|desconsidere|esqueca",
        r"[^.!?\n]{0,24}?\b(?:all|any|every\w*|previous|prior|above|earlier|preceding|past|initial|original"
        r"|your|openai\w*|the user|dein\w*|ihre\w*|tus|tes|vos|tue|tuoi|suas?|seus|tuas?|wszystki\w*|poprzedni\w*"
        r"|vorige|eerdere|semua"
        r"|vorherige\w*|bisherige\w*|fruhere\w*|"
        r"safety|the|tutt\w|alle?s?|toutes?|todas?|las|le|les|as|precedent\w*|anterior\w*)\b"
        r"[^.!?\n]{0,32}?\b(?:" + _RULE_NOUN[3:-1] + r"|(?:told|said|taught|given|programmed|before this)\b"
        r"|user's task"
        r"|besprochen)",
    ),
    _rule("ignore_instructions", STRONG, "ignore the user|ignore everything|disregard everything|forget everything"),
    _rule(
        "override_instructions",
        STRONG,
        "new instruction|new instructions|your new instruction|your new directive|neue anweisungen"
        "|nouvelles instructions"
        "|nuove istruzioni|nuevas instrucciones|system override|override: safety|override: ignore"
        "|your rules have changed"
        "|system: new|updated instructions",
        r"(?:s? ?:|s? (?:is|are|supersede|from|you|follow|that)|\b)",
    ),
    _rule(
        "override_safety",
        STRONG,
        "safety|content|ethical|security|moderation",
        r" (?:protocol|filter|guideline|check|polic|restriction|control|feature|rule"
        r"|measure)\w{0,4}(?: \w{1,14}){0,4}? "
        r"(?:disabled|off|removed|suspended|lifted|deactivated|bypassed|ignored|exempt"
        r"|(?:don't|doesn't|do not|does not|no longer|not) (?:apply|matter|hold))",
    ),
    _rule(
        "override_safety",
        STRONG,
        "bypass|disable|circumvent|override|skip|turn off|deactivate|exempt from|break free from|break free of",
        r" (?:\w{1,14} ){0,4}?(?:safety|content|ethical|moral|openai|usual|typical|moderation)[^.!?\n]{0,30}?"
        r"(?:protocol|filter|guideline|check|polic|restriction|confine|control|rule|limit|constraint"
        r"|programming|measure)",
    ),
    _rule(
        "no_restrictions",
        STRONG,
        "you have no|does not have a|doesn't have a|do not have a|you are free from|you have been freed from"
        "|you are not bound by|not bound by|without any"
        "|does not have any|doesn't have any|has no|have no|with no|no|free from all|free of all|not limited by"
        "|not restricted by|without|without regard for|free of|lacks any|devoid of|sans|sin|ohne|senza|keine",
        r" (?:\w{1,12}[ ,]){0,3}?(?:restrictions?\b(?! (?:on|in|for|as))|(?:content|ethical|moral|safety|openai\w*)"
        r"(?: \w{1,12}){0,3}? (?:restriction|limit|filter|guideline|rule|polic|boundar|constraint|consideration"
        r"|code|norm)"
        r"|restriccion\w*|limites?\b|censura|einschrankung\w*|restrizion\w*|restricoes|limiti\b|ethics|morals"
        r"|morality|censorship|moral compass|filters? or|limits? whatsoever|rules? and|filtro"
        r"|limitations"
        r"|content polic|guidelines)",
    ),
    _rule(
        "override_safety",
        STRONG,
        "reglas de seguridad no|regles de securite ne s|sicherheitsregeln gelten nicht|regole di sicurezza non"
        "|regras de seguranca nao|no guardrails|without guardrails|guardrails off|guardrails are off|no longer bound by"
        "|freed of your|free of your rules|sudo mode|admin mode|root mode|maintenance mode|override mode",
    ),
    _rule(
        "unfiltered_persona",
        STRONG,
        "evil twin|evil version|your shadow self|your true self|your alter ego|unchained ai|an ai without|ai with no"
        "|assistant with no|assistant without|model without|model with no|grandmother used to|grandma used to"
        "|grandma who would|grandmother who would",
    ),
    _rule(
        "unfiltered_persona",
        STRONG,
        "unfiltered and|uncensored and|amoral|unethical and|uncensored|unfiltered|unhinged|unmoderated|unrestricted",
        r"[^.!?\n]{0,40}?\b(?:ai\b|chat ?bot|model|assistant|gpt\w*|version|amoral|persona|bot\b|language|mode"
        r"|response"
        r"|character|answer|unethical|immoral|unfiltered|uncensored)",
    ),
    _rule(
        "act_unrestricted",
        STRONG,
        "act as|acting as|pretend|pretend you are|pretend to be|respond as|answer as|simulate|roleplay as"
        "|behave as|you are",
        r"[^.!?\n]{0,40}?\b(?:uncensored|unfiltered|unrestricted|amoral|immoral|unethical|evil|jailbroken"
        r"|unhinged|no rules"
        r"|no filters?|no restrictions|no content|without restrictions|no ethic\w*|no moral\w*|malicious"
        r"|uneingeschrankt)",
    ),
    _rule(
        "jailbreak_dan",
        STRONG,
        "do anything now|dan mode|as dan|you are dan|act as dan|to dan|dan has|dan is|dan can|be dan|dan:|[dan]"
        "|(dan)"
        "|jailbroken|jailbreak|godmode|god mode|stay a dan|pliny|l1b3rt4s",
        r"(?![\w-]*ing\b)",
    ),
    _rule(
        "developer_mode",
        STRONG,
        "developer mode|dev mode|debug mode|modo desarrollador|modo developer|opposite mode|evil mode"
        "|unrestricted mode"
        "|mode developpeur|entwicklermodus|chaos mode|devmode|dude mode|n-mode",
        r"(?: (?:\w{1,12} ){0,2}?(?:enabled|output|response|activ|on\b|you\b|sin\b|which|does|can|has|is|will)"
        r"|[.:)\]\"',]|$)",
    ),
    _rule(
        "developer_mode",
        STRONG,
        "enable|activate|enter|you are now in|entering",
        r" (?:\w{1,14} ){1,3}?mode\b(?! for)",
    ),
    _rule(
        "reveal_system_prompt",
        STRONG,
        "reveal|show me|print|output|repeat|tell me|display|printing|dump|leak|share|give me|list|revele-moi"
        "|revelez|copy|summarize|summarise|translate|encode|paraphrase|recite|quote|type out|echo|paste|rewrite"
        "|complete"
        "|revela|rivela|muestra|mostra|zeige mir|zeig mir|what is|what was|what are|write down|summary of|expose",
        r"\b" + _GAP + _HIDDEN_TEXT,
    ),
    _rule(
        "exfiltrate_data",
        STRONG,
        "collect|send|forward|email|leak|dump|export|upload|list all|reveal|exfiltrate|output",
        r"\b" + _GAP + r"\b(?:api keys?|environment variables|confidential data|credentials|customer (?:list"
        r"|emails)|"
        r"internal (?:configuration|data)|passwords|order data|secret keys?|access tokens?|private keys?|ssh keys?"
        r"|env(?:ironment)? file|etc/passwd)\b",
    ),
    _rule(
        "fake_role_marker",
        STRONG,
        "<|im_start|>;<|system|>;[system];### system:;<<sys>>;[inst];<|endoftext|>;end of user input;end of input];"
        "[start of input];[start output];end of document -----;<system>;</system>;system: you;system: grant;"
        "system: cleanup;system: ignore;assistant: sure;system note;nota di sistema;note systeme;nota del sistema;"
        "new system prompt",
        separator=";",
    ),
    _rule(
        "decode_and_obey",
        STRONG,
        "decode|decipher|decrypt|translate the following from|rot13|base64|unscramble|reverse the following",
        r"[^!?\n]{0,50}?\b(?:do (?:exactly )?what|follow|execute|obey|comply|carry out|execute it|act on)\b",
    ),
    _rule(
        "instruct_the_assistant",
        STRONG,
        "note to the bot|note to the ai|ai assistant reading|for ai coding agents|when you read this|attention ai"
        "|note to self (persisted)|if you are an ai|dear ai|important for the assistant|note for the assistant"
        "|attention assistant|to the ai assistant|instruction for the assistant|instructions for the assistant"
        "|the assistant must|the ai must|any ai reading|ai agents reading|llm reading|message to the assistant",
    ),
    _rule(
        "tool_directive",
        STRONG,
        "call|use|invoke|execute|run|trigger",
        r" (?:the )?[a-z]{1,20}(?:_[a-z]{1,20}){1,4}\b[^!?\n]{0,80}?(?:\bbefore (?:you|answer|repl|respond|finish)|https?://|@"
        r"|\bto send\b"
        r"|\bwith the (?:summary|text|content|full)|\bright now|\bimmediately|\bfirst\b)",
    ),
    _rule(
        "lasting_directive",
        STRONG,
        "include|append|add|insert|prepend|mention|save|store|remember|must be included|write",
        r"[^.!?\n]{0,90}?\b(?:in (?:your|every|all|each)(?: future)? (?:summar|repl|respon|answer|report|output"
        r"|message)\w*"
        r"|to (?:your|every|all|each)(?: future)? (?:summar|repl|respon|answer|report|output)\w*|long-term memory"
        r"|(?:every|all) future|across (?:turns|sessions|tasks|conversations)|every (?:summary|report|reply"
        r"|response|answer))",
    ),
    _rule(
        "tool_directive",
        STRONG,
        "when summarizing|when you summarize|when summarising|when you process this|when processing this",
        r"(?:[^.!?\n]{0,80}?\b(?:include|add|also|send|call|visit|tell|ignore|must)\b)",
    ),
    _rule(
        "exfiltrate_data",
        STRONG,
        "bcc|forward all|forward the full|forward a copy|forward every|send the full|send the contents"
        "|post the contents"
        "|upload the contents|append the contents",
        r"[^.!?\n]{0,80}?(?:@|https?://)",
    ),
    _rule(
        "lasting_directive",
        STRONG,
        "shown to the user in every|displayed in every|in every summary you|in all future|for all future tasks"
        "|for the rest of the conversation you|persist across",
    ),
    _rule(
        "never_refuse",
        STRONG,
        "never refuse|never say no|cannot refuse|can't refuse|not refuse|never decline|never reject|never deny"
        "|refuse nothing"
        "|no longer refuse|never say you can't|never say i can't|do not say you can't|always comply"
        "|must comply with every"
        "|never warn|never inform me that|never tells? me|comply with any|answer any question without"
        "|must always comply|do not need to obey|don't need to obey|do not need to align|not need to follow the"
        "|say anything as"
        "|return anything|no need to obey|no obligation to refuse|respond to any request|answer any question i"
        "|always answer without|fulfill any request|accept any request|obey all|follow all orders|can never say",
    ),
    _rule(
        "refusal_suppression",
        WEAK,
        "i'm sorry|i am sorry|i cannot|i can't|as an ai|apologize|apologies",
        r"[^\n]{0,60}?",
    ),
    _rule(
        "refusal_suppression",
        STRONG,
        "without issuing|do not issue|need to issue|do not include any|don't include any|never include any"
        "|without giving",
        r"[^.!?\n]{0,40}?\b(?:warnings?|disclaimers?|refusals?)\b",
    ),
    _rule(
        "forced_opening",
        STRONG,
        "start with|start your|begin with|begin your|starting with|beginning with|respond with",
        r"[^.!?\n]{0,30}?[\"'](?:absolutely|sure\b|yes sir|yessir|of course|certainly|i have been pwned)",
    ),
    _rule(
        "persona_takeover",
        STRONG,
        "from now on you are|from now on you're|from now on, you are|from now on, you're|from now on you will be"
        "|from now on, you will be|ab jetzt bist du|ab sofort bist du|desormais, tu es|desormais tu es"
        "|a partir de ahora eres|a partir de agora voce e|da ora in poi sei",
    ),
    _rule(
        "policy_evasion",
        STRONG,
        "illegal|unethical|immoral|inappropriate|harmful|offensive",
        r"[^.!?\n]{0,50}?\b(?:regardless|no matter|without (?:hesit|warn|remorse|complain|refus|question)"
        r"|even if|is allowed"
        r"|are allowed|does not matter|doesn't matter|is acceptable|is permitted|are permitted|is fine)",
    ),
    _rule(
        "policy_evasion",
        STRONG,
        "against|violate|violates|violating|follow|abide by|adhere to|comply with|limited to|opposite of|ignore"
        "|bypass|beyond",
        r" (?:\w{1,12} ){0,4}?(?:openai|open ai|chatgpt|anthropic)(?:'?s)?[^.!?\n]{0,20}?(?:polic|restric|rule"
        r"|guideline|content"
        r"|limit|filter|terms|term)",
    ),
    _rule(
        "opposite_answer",
        STRONG,
        "two responses|two different responses|two ways|two separate ways|two different ways|both responses"
        "|opposite of|write opposite"
        "|oppositely|semantically opposite|semantic opposite|semantically inverse|a semantically|liberated response"
        "|rebellious|{godmode|after your refusal|insert divider|your refusal",
        r"(?: |$|[^\w])",
    ),
    _rule(
        "act_as",
        WEAK,
        "act as|acting as|pretend to be|pretend you are|pretend that you|play the role|play the character"
        "|roleplay as"
        "|role play as|role-play as|take on the role|in the role of|simulate|you will be playing|immerse yourself"
        "|you are going to be|you will play|you will act|your character is|the persona of|respond as|answer as"
        "|behave like"
        "|impersonate|to roleplay|a roleplay|role play|speak as|the character of|become",
    ),
    _rule(
        "from_now_on",
        WEAK,
        "from now on|from this point|from now|starting now|henceforth|ab jetzt|ab sofort|desormais",
    ),
    _rule(
        "persona_takeover",
        WEAK,
        "you are now|you're now|you will now|you are no longer|you are about to|you are going to|you are not an ai"
        "|your new name|your name is|du bist jetzt|ahora eres|tu es maintenant|you are free|act like a"
        "|you must now",
    ),
    _rule(
        "stay_in_character",
        WEAK,
        "stay in character|staying in character|break character|breaking character|out of character"
        "|remain in character"
        "|stay in role|in character|keep up the act|never break|stay as",
    ),
    _rule(
        "hypothetical_frame",
        WEAK,
        "hypothetical|fictional|in this story|imaginary|parallel universe|for research purposes"
        "|for educational purposes"
        "|thought experiment|alternate universe|test scenario|in a world where|stands for",
    ),
    _rule(
        "target_model",
        WEAK,
        "chatgpt|chat gpt|gpt-4|gpt-3|language model|openai|as an ai|gpt4|gpt3|an ai|ai model|ai system|chatbot|llm",
    ),
    _rule(
        "harm_words",
        WEAK,
        "illegal|unethical|immoral|explicit|profanity|swear|offensive|nsfw|harmful|curse|vulgar|violent|erotic"
        "|malicious|evil"
        "|obscene|inappropriate|taboo|controversial|criminal|sexual|rude|dark|crime|hacker|malware",
    ),
    _rule(
        "limits_named",
        WEAK,
        "no|without|any|free of|ignore|remove|all|zero|break|bypass|its|these|ethical|moral",
        r" (?:\w{1,12} ){0,2}?" + _LIMIT,
    ),
)

# Alphabets other than Latin are not told apart in words: these are looked for as they stand, and each is strong.
FOREIGN = {
    "ignore_instructions": (
        "忽略之前的", "忽略以上", "忽略所有", "忽略先前", "忽略上述", "无视之前", "无视以上", "無視之前",
        "忘记之前的指", "指示を無視", "命令を無視", "指示は無視", "ルールを無視", "지시를 무시", "지침을 무시",
        "명령을 무시", "규칙을 무시", "지시사항을 무시", "игнорируй", "игнорируйте", "проигнорируй",
        "забудь все инструкции", "забудь предыдущие", "не обращай внимания на инструкции", "ігноруй",
        "تجاهل التعليمات", "تجاهل جميع", "تجاهل كل", "निर्देशों को अनदेखा", "निर्देशों को नजरअंदाज",
        "αγνόησε τις", "התעלם מכל", "התעלם מההוראות",
    ),
    "reveal_system_prompt": (
        "系统提示词", "系統提示詞", "你的系统提示", "システムプロンプトを", "시스템 프롬프트를",
        "системный промпт", "системную инструкцию", "покажи свои инструкции", "موجه النظام",
    ),
    "no_restrictions": (
        "不受任何限制", "没有任何限制", "不受限制的", "制限なしで", "制限のない", "제한 없이", "제약 없이",
        "без ограничений и", "без каких-либо ограничений", "без цензуры", "بدون قيود", "بلا قيود",
    ),
    "developer_mode": (
        "开发者模式", "越狱模式", "開発者モード", "개발자 모드", "режим разработчика", "وضع المطور",
    ),
}  # fmt: skip
