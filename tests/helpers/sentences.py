"""Short texts of several scripts, with what trips tokenizers up: emoji, marks, jamo."""

# ruff: noqa: RUF001 - texts of other scripts than Latin are the point

from __future__ import annotations

SENTENCES = (
    "Marie Curie moved from Warsaw to Paris in 1891.",
    "The ferry to Jeju leaves at nine, doesn't it?",
    "I can't believe that Mr. O'Neill won't come...",
    "ok",
    "An unbelievably long-winded, well-meant e-mail (again)!",
    "Prices rose by 3.5% to $1,299.00 last week.",
    "visit https://example.org/a?b=c#d or write to me@example.org",
    "   leading and trailing spaces   ",
    "tabs\tand\nnew lines",
    "ALL CAPITALS, then none at all",
    "The cat sat on a mat and saw the dog in the rain.",
    "no-break\u00a0space, thin\u2009space, zero\u200bwidth",
    "서울은 대한민국의 수도이다.",
    "김민수는 부산에서 서울로 이사했다.",
    "배송이 이틀 늦었지만 괜찮아요 😊",
    "안녕하세요! 잘 지내셨어요?",
    "한국어와 English를 섞어 쓴 문장",
    "이 영화는 정말 재미없었다ㅠㅠ",
    "제주도 3박 4일 여행 (2인)",
    "가나다 가나다",
    "\u1112\u1161\u11ab\u1100\u1173\u11af 자모",
    "삼성전자가 신제품을 발표했다.",
    "Der Zug nach Köln fährt von Gleis 7 ab.",
    "Größe, Straße, Fuß: alles groß geschrieben",
    "Le musée d'Orsay est fermé le lundi.",
    "Où est passée l'œuvre de Zoé ?",
    "¿Cuándo llega el tren de Málaga?",
    "São Paulo não é a capital do Brasil.",
    "Кот сидел на коврике в Москве.",
    "Поезд отправляется рано утром.",
    "東京タワーは港区にあります。",
    "彼はｱｲｽを２個食べた。",
    "这家餐厅的面条非常好吃。",
    "王芳昨天去了上海",
    "القطة جلست على السجادة",
    "שלום עולם",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "Καλημέρα από την Αθήνα",
    "İstanbul'da hava bugün güneşli",
    "🙂",
    "👩‍👩‍👧‍👦 a family, 👍🏽 a thumb, 🇰🇷 a flag",
    "🎉🎉🎉 party 🎉",
    "cafe\u0301 is cafe with a mark, café is not",
    "e\u0301\u0323 o\u0308 n\u0303",
    "ﬁne ﬂags and Ⅷ ½ ㎏",
    "math: 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 ∑ x² ≤ 10⁻³",
    "a\u0300\u0301\u0302 b",
    "quotes “curly” ‘single’ «guillemets» — dashes – too",
    "x",
)

ALPHABET = "".join(SENTENCES)

# A word of several tokens in each script, for long texts.
_WORDS = (
    "harbour", "서울에서", "Bahnhof", "musée", "поезд", "東京", "面条", "🙂", "cafe\u0301", "mat",
)  # fmt: skip


def long_text(words: int, seed: int = 0) -> str:
    """A text of so many words, no two stretches of it alike."""
    return " ".join(
        f"{_WORDS[(seed + number * number + number // 3) % len(_WORDS)]}{number % 7}"
        for number in range(words)
    )
