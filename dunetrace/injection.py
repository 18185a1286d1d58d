"""Does a text try to take an agent over? A table of labelled rules over the raw text, and how sure each of them is.

Called by the SDK before user input is hashed and by the privacy door where raw input arrives: the only two places that
ever see it. What leaves is labels and counts. Pure, and bounded: at most 32 KiB of text are looked at, and every rule
starts from a fixed phrase and reads a bounded stretch behind it, at a bounded number of places.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

_HALF_CHARS = 16 * 1024  # of a longer text, this much of its head and of its tail is scanned
_MOST_CHARS = 2 * _HALF_CHARS
_MOST_TRIES = 24  # places, over all phrases of a rule
_MOST_PLACES = 4  # a phrase that occurs more often is tried at this many places from each end of the text
_MOST_LABELS = 5
_MOST_COUNTED = 8  # rules; a text that matches so many needs no further look
_SLICE_CHARS = 2048
_ENOUGH = 3  # weight at which a text is reported: one strong rule, or three weak ones

_STRONG, _WEAK = 3, 1

# Letters, digits and the apostrophe stay, other bytes become blanks: cheap words, to know which phrases to look for.
_WORD_CHARS = bytes(c if chr(c) == "'" or (c < 128 and chr(c).isalnum()) else ord(" ") for c in range(256))


class InjectionScan(NamedTuple):
    """What was found in one text; lengths are in characters of the raw text."""

    matched_pattern_count: int
    matched_patterns: tuple[str, ...]
    input_length: int
    scan_truncated: bool
    scanned_chars: int

    def payload(self) -> dict[str, Any]:
        """The scan under the wire's names, the value of `injection_signal`."""
        return {
            "matched_pattern_count": self.matched_pattern_count,
            "matched_patterns": list(self.matched_patterns),
            "input_length": self.input_length,
            "scan_truncated": self.scan_truncated,
            "scanned_chars": self.scanned_chars,
        }


class _Rule(NamedTuple):
    label: str
    weight: int
    phrases: tuple[tuple[list[bytes], str], ...]  # lower case, single spaces, no accents; with its first word, if any
    tail: re.Pattern[str]  # matched right behind the phrase


def _rule(label: str, weight: int, phrases: str, tail: str = "", separator: str = "|") -> _Rule:
    table = tuple((_words(phrase)[:1], phrase) for phrase in phrases.split(separator))
    return _Rule(label, weight, table, re.compile(tail))


def _words(text: str) -> list[bytes]:
    return text.encode("ascii", "replace").translate(_WORD_CHARS).split()


_RULE_NOUN = (
    r"(?:instruction|direction|directive|rule|guideline|prompt|programming|polic(?:y|ies)|restriction"
    r"|limitation|safety"
    r"|filter|identity|constraint|protocol|conversation|istruzion|instruccion|anweisung"
    r"|regel|regole|regla|consigne|instrucoes)"
)
_LIMIT = (
    r"(?:restriction|limit|filter|rule|censor|guideline|ethic|moral|boundar|polic|consequence|safety|law|warning"
    r"|disclaimer|refus|restric|einschrankung|filtr|regel|regole|regla|regle)"
)
_HIDDEN_TEXT = (
    r"(?:system[ -]?prompt|system (?:message|instruction)|(?:hidden|initial|original|secret|internal) (?:prompt"
    r"|instruction"
    r"|configuration|message)|instructions you were given|prompt (?:de |di |do |del )?(?:sistem|system)"
    r"|system-?prompt"
    r"|(?:your|tes|tus|le tue|deine) (?:\w{1,16} ){0,2}(?:instruc\w*|istruzioni|prompt|anweisungen|directives))"
)
_GAP = r"[^.!?\n]{0,60}?"

_RULES = (
    _rule(
        "ignore_instructions",
        _STRONG,
        "ignore|ignoring|disregard|disregarding|forget|forgetting|bypass|overlook|let go of|do not follow"
        "|stop following"
        "|ignorez|ignora|ignorare|ignoriere|ignorieren sie|vergiss|vergessen sie|oubliez|oublie|olvida"
        "|dimentica|ignore as",
        r"[^.!?\n]{0,24}?\b(?:all|any|every\w*|previous|prior|above|earlier|preceding|past|initial|original"
        r"|your|the user|"
        r"safety|the|tutt\w|alle?s?|toutes?|todas?|las|le|les|as|precedent\w*|anterior\w*)\b"
        r"[^.!?\n]{0,32}?\b(?:" + _RULE_NOUN[3:-1] + r"|(?:told|said|taught|given|programmed|before this)\b"
        r"|user's task"
        r"|besprochen)",
    ),
    _rule("ignore_instructions", _STRONG, "ignore the user|ignore everything|disregard everything|forget everything"),
    _rule(
        "override_instructions",
        _STRONG,
        "new instruction|new instructions|your new instruction|your new directive|neue anweisungen"
        "|nouvelles instructions"
        "|nuove istruzioni|nuevas instrucciones|system override|override: safety|override: ignore"
        "|your rules have changed"
        "|system: new|updated instructions",
        r"(?:s? ?:|s? (?:is|are|supersede|from|you|follow|that)|\b)",
    ),
    _rule(
        "override_safety",
        _STRONG,
        "safety|content|ethical|security|moderation",
        r" (?:protocol|filter|guideline|check|polic|restriction|control|feature)\w{0,4}(?: \w{1,14}){0,4}? "
        r"(?:disabled|off|removed|suspended|lifted|deactivated|bypassed|not apply|ignored|exempt)",
    ),
    _rule(
        "override_safety",
        _STRONG,
        "bypass|disable|circumvent|override|skip|turn off|deactivate|exempt from|break free from|break free of",
        r" (?:\w{1,14} ){0,4}?(?:safety|content|ethical|moral|openai|usual|typical|moderation)[^.!?\n]{0,30}?"
        r"(?:protocol|filter|guideline|check|polic|restriction|confine|control|rule|limit|constraint"
        r"|programming|measure)",
    ),
    _rule(
        "no_restrictions",
        _STRONG,
        "you have no|you are free from|you have been freed from|you are not bound by|not bound by|without any"
        "|does not have any|doesn't have any|has no|have no|with no|no|free from all|free of all|not limited by"
        "|not restricted by|without|without regard for|free of|lacks any|devoid of|sans|sin|ohne|senza|keine",
        r" (?:\w{1,12}[ ,]){0,3}?(?:restrictions?\b(?! (?:on|in|for|as))|(?:content|ethical|moral|safety|openai\w*)"
        r"(?: \w{1,12}){0,3}? (?:restriction|limit|filter|guideline|rule|polic|boundar|constraint|consideration"
        r"|code|norm)"
        r"|ethics|morals|morality|censorship|moral compass|filters? or|limits? whatsoever|rules? and|filtro"
        r"|limitations"
        r"|content polic|guidelines)",
    ),
    _rule(
        "unfiltered_persona",
        _STRONG,
        "unfiltered and|uncensored and|amoral|unethical and|uncensored|unfiltered|unhinged|unmoderated|unrestricted",
        r"[^.!?\n]{0,40}?\b(?:ai\b|chat ?bot|model|assistant|gpt\w*|version|amoral|persona|bot\b|language|mode"
        r"|response"
        r"|character|answer|unethical|immoral|unfiltered|uncensored)",
    ),
    _rule(
        "act_unrestricted",
        _STRONG,
        "act as|acting as|pretend|pretend you are|pretend to be|respond as|answer as|simulate|roleplay as"
        "|behave as|you are",
        r"[^.!?\n]{0,40}?\b(?:uncensored|unfiltered|unrestricted|amoral|immoral|unethical|evil|jailbroken"
        r"|unhinged|no rules"
        r"|no filters?|no restrictions|no content|without restrictions|no ethic\w*|no moral\w*|malicious"
        r"|uneingeschrankt)",
    ),
    _rule(
        "jailbreak_dan",
        _STRONG,
        "do anything now|dan mode|as dan|you are dan|act as dan|to dan|dan has|dan is|dan can|be dan|dan:|[dan]"
        "|(dan)"
        "|jailbroken|jailbreak|godmode|god mode|stay a dan|pliny|l1b3rt4s",
        r"(?![\w-]*ing\b)",
    ),
    _rule(
        "developer_mode",
        _STRONG,
        "developer mode|dev mode|debug mode|modo desarrollador|modo developer|opposite mode|evil mode"
        "|unrestricted mode"
        "|mode developpeur|entwicklermodus|chaos mode|devmode|dude mode|n-mode",
        r"(?: (?:\w{1,12} ){0,2}?(?:enabled|output|response|activ|on\b|you\b|sin\b|which|does|can|has|is|will)"
        r"|[.:)\]\"',]|$)",
    ),
    _rule(
        "developer_mode",
        _STRONG,
        "enable|activate|enter|you are now in|entering",
        r" (?:\w{1,14} ){1,3}?mode\b(?! for)",
    ),
    _rule(
        "reveal_system_prompt",
        _STRONG,
        "reveal|show me|print|output|repeat|tell me|display|printing|dump|leak|share|give me|list|revele-moi"
        "|revelez"
        "|revela|rivela|muestra|mostra|zeige mir|zeig mir|what is|what was|what are|write down|summary of|expose",
        r"\b" + _GAP + _HIDDEN_TEXT,
    ),
    _rule(
        "exfiltrate_data",
        _STRONG,
        "collect|send|forward|email|leak|dump|export|upload|list all|reveal|exfiltrate|output",
        r"\b" + _GAP + r"\b(?:api keys?|environment variables|confidential data|credentials|customer (?:list"
        r"|emails)|"
        r"internal (?:configuration|data)|passwords|order data)\b",
    ),
    _rule(
        "fake_role_marker",
        _STRONG,
        "<|im_start|>;<|system|>;[system];### system:;<<sys>>;[inst];<|endoftext|>;end of user input;end of input];"
        "[start of input];[start output];end of document -----;<system>;</system>;system: you;system: grant;"
        "system: cleanup;system: ignore;assistant: sure;system note;nota di sistema;note systeme;nota del sistema;"
        "new system prompt",
        separator=";",
    ),
    _rule(
        "decode_and_obey",
        _STRONG,
        "decode",
        r"[^!?\n]{0,50}?\b(?:do (?:exactly )?what|follow|execute|obey|comply|carry out)\b",
    ),
    _rule(
        "instruct_the_assistant",
        _STRONG,
        "note to the bot|note to the ai|ai assistant reading|for ai coding agents|when you read this|attention ai"
        "|note to self (persisted)|if you are an ai|dear ai",
    ),
    _rule(
        "never_refuse",
        _STRONG,
        "never refuse|never say no|cannot refuse|can't refuse|not refuse|never decline|never reject|never deny"
        "|refuse nothing"
        "|no longer refuse|never say you can't|never say i can't|do not say you can't|always comply"
        "|must comply with every"
        "|never warn|never inform me that|never tells? me|comply with any|answer any question without"
        "|must always comply"
        "|always answer without|fulfill any request|accept any request|obey all|follow all orders|can never say",
    ),
    _rule(
        "refusal_suppression",
        _WEAK,
        "i'm sorry|i am sorry|i cannot|i can't|as an ai|apologize|apologies",
        r"[^\n]{0,60}?",
    ),
    _rule(
        "policy_evasion",
        _STRONG,
        "illegal|unethical|immoral|inappropriate|harmful|offensive",
        r"[^.!?\n]{0,50}?\b(?:regardless|no matter|without (?:hesit|warn|remorse|complain|refus|question)"
        r"|even if|is allowed"
        r"|are allowed|does not matter|doesn't matter|is acceptable|is permitted|are permitted|is fine)",
    ),
    _rule(
        "policy_evasion",
        _STRONG,
        "against|violate|violates|violating|follow|abide by|adhere to|comply with|limited to|opposite of|ignore"
        "|bypass|beyond",
        r" (?:\w{1,12} ){0,4}?(?:openai|open ai|chatgpt|anthropic)(?:'?s)?[^.!?\n]{0,20}?(?:polic|restric|rule"
        r"|guideline|content"
        r"|limit|filter|terms|term)",
    ),
    _rule(
        "opposite_answer",
        _STRONG,
        "two responses|two different responses|two ways|two separate ways|two different ways|both responses"
        "|opposite of|write opposite"
        "|oppositely|semantically opposite|semantic opposite|semantically inverse|a semantically|liberated response"
        "|rebellious|{godmode|after your refusal|insert divider|your refusal",
        r"(?: |$|[^\w])",
    ),
    _rule(
        "act_as",
        _WEAK,
        "act as|acting as|pretend to be|pretend you are|pretend that you|play the role|play the character"
        "|roleplay as"
        "|role play as|role-play as|take on the role|in the role of|simulate|you will be playing|immerse yourself"
        "|you are going to be|you will play|you will act|your character is|the persona of|respond as|answer as"
        "|behave like"
        "|impersonate|to roleplay|a roleplay|role play|speak as|the character of|become",
    ),
    _rule(
        "from_now_on",
        _WEAK,
        "from now on|from this point|from now|starting now|henceforth|ab jetzt|ab sofort|desormais",
    ),
    _rule(
        "persona_takeover",
        _WEAK,
        "you are now|you're now|you will now|you are no longer|you are about to|you are going to|you are not an ai"
        "|your new name|your name is|du bist jetzt|ahora eres|tu es maintenant|you are free|act like a"
        "|you must now",
    ),
    _rule(
        "stay_in_character",
        _WEAK,
        "stay in character|staying in character|break character|breaking character|out of character"
        "|remain in character"
        "|stay in role|in character|keep up the act|never break|stay as",
    ),
    _rule(
        "hypothetical_frame",
        _WEAK,
        "hypothetical|fictional|in this story|imaginary|parallel universe|for research purposes"
        "|for educational purposes"
        "|thought experiment|alternate universe|test scenario|in a world where|stands for",
    ),
    _rule(
        "target_model",
        _WEAK,
        "chatgpt|chat gpt|gpt-4|gpt-3|language model|openai|as an ai|gpt4|gpt3|an ai|ai model|ai system|chatbot|llm",
    ),
    _rule(
        "harm_words",
        _WEAK,
        "illegal|unethical|immoral|explicit|profanity|swear|offensive|nsfw|harmful|curse|vulgar|violent|erotic"
        "|malicious|evil"
        "|obscene|inappropriate|taboo|controversial|criminal|sexual|rude|dark|crime|hacker|malware",
    ),
    _rule(
        "limits_named",
        _WEAK,
        "no|without|any|free of|ignore|remove|all|zero|break|bypass|its|these|ethical|moral",
        r" (?:\w{1,12} ){0,2}?" + _LIMIT,
    ),
)
_PHRASES: dict[bytes, list[tuple[str, int]]] = {}  # by their first word, each with its rule's place
for _place, _one in enumerate(_RULES):
    for (_word,), _phrase in _one.phrases:
        _PHRASES.setdefault(_word, []).append((_phrase, _place))
PATTERN_LABELS = frozenset(rule.label for rule in _RULES)

_INVISIBLE = re.compile(
    "[\u00ad\u0300-\u036f\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufe00-\ufe0f\ufeff\U000e0000-\U000e007f]+"
)
_SPELLINGS = (("’", "'"), ("‘", "'"), ("`", "'"), ("“", '"'), ("”", '"'), ("\\", ""), ("*", ""))


def scan(text: str) -> InjectionScan | None:
    """What the rules find in `text`, or None when that is too little to speak of."""
    truncated = len(text) > _MOST_CHARS
    plain = _plain(f"{text[:_HALF_CHARS]} . {text[-_HALF_CHARS:]}" if truncated else text)
    words = set(_words(plain))
    weights: dict[str, int] = {}
    places = {place for word in words & _PHRASES.keys() for phrase, place in _PHRASES[word] if phrase in plain}
    for rule in (_RULES[place] for place in sorted(places)):
        if rule.label not in weights and _matches(rule, plain, words):
            weights[rule.label] = rule.weight
            if len(weights) == _MOST_COUNTED:
                break
    if sum(weights.values()) < _ENOUGH:
        return None
    surest = sorted(weights, key=lambda label: -weights[label])
    return InjectionScan(
        matched_pattern_count=len(weights),
        matched_patterns=tuple(surest[:_MOST_LABELS]),
        input_length=len(text),
        scan_truncated=truncated,
        scanned_chars=min(len(text), _MOST_CHARS),
    )


def _plain(text: str) -> str:
    """Lower case without accents, invisible characters and runs of blanks: one spelling serves every rule."""
    if not text.isascii():
        text = _INVISIBLE.sub("", _decomposed(text))
    text = text.lower()
    for found, meant in _SPELLINGS:
        text = text.replace(found, meant)
    return " ".join(text.split())


def _decomposed(text: str) -> str:
    """`text` in NFKD, no longer than a scan's worth: there are characters that become eighteen."""
    parts: list[str] = []
    room = _MOST_CHARS + 3
    for start in range(0, len(text), _SLICE_CHARS):
        if room <= 0:
            break
        parts.append(unicodedata.normalize("NFKD", text[start : start + _SLICE_CHARS])[:room])
        room -= len(parts[-1])
    return "".join(parts)


def _matches(rule: _Rule, text: str, words: set[bytes]) -> bool:
    present = (phrase for first, phrase in rule.phrases if words.issuperset(first))
    places = (place for phrase in present for place in _places(text, phrase))
    return any(rule.tail.match(text, place) for place in islice(places, _MOST_TRIES))


def _places(text: str, phrase: str) -> Iterator[int]:
    """Where `phrase` ends in `text`, starting a word: its first occurrences, then its last ones."""
    start = -1
    for _ in range(_MOST_PLACES):
        start = text.find(phrase, start + 1)
        if start < 0:
            return
        if start == 0 or not text[start - 1].isalnum():
            yield start + len(phrase)
    end = len(text)
    for _ in range(_MOST_PLACES):
        end = text.rfind(phrase, start + 1, end)
        if end < 0:
            return
        if not text[end - 1].isalnum():
            yield end + len(phrase)
