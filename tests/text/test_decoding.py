"""The encoding that is proposed is the one the text was written in."""

# ruff: noqa: RUF001

from __future__ import annotations

import pytest

from gpt2cli.text import decoding

TEXTS = [
    ("cp1252", "The King’s “Grace” — naïve café, £3"),
    ("cp1252", "Der Bär läuft über die Straße; größer als früher, schöne Grüße."),
    ("cp1250", "Zażółć gęślą jaźń. Wszyscy ludzie rodzą się wolni i równi."),
    ("cp1251", "Все люди рождаются свободными и равными в своем достоинстве."),
    ("koi8-r", "Все люди рождаются свободными и равными в своем достоинстве."),
    ("cp866", "Все люди рождаются свободными и равными в своем достоинстве."),
    ("cp1253", "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια"),
    ("cp1255", "כל בני האדם נולדו בני חורין ושווים בערכם ובזכויותיהם"),
    ("cp1256", "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق"),
    ("shift-jis", "親譲りの無鉄砲で小供の時から損ばかりしている。"),
    ("euc-jp", "親譲りの無鉄砲で小供の時から損ばかりしている。"),
    ("euc-kr", "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다."),
    ("gb18030", "人人生而自由，在尊严和权利上一律平等。他们赋有理性和良心。"),
    ("big5", "人人生而自由，在尊嚴和權利上一律平等。他們賦有理性和良心。"),
    ("mac-roman", "L’été, les élèves étaient très pressés d’être là."),
    ("cp850", "L'été, les élèves étaient très pressés d'être là."),
]


@pytest.mark.parametrize(("name", "text"), TEXTS)
def test_what_decodes_to_letters_is_proposed(name: str, text: str) -> None:
    content = b"plain\n" + text.encode(name)
    with pytest.raises(UnicodeDecodeError) as caught:
        content.decode()
    told = decoding.remedy(content, caught.value.start)
    assert told.endswith(f". Give --encoding {name}.")
    assert text[:5] in told


def test_latin_1_is_read_by_what_reads_windows_quotes_too() -> None:
    assert "--encoding cp1252" in decoding.remedy("café au lait".encode("latin-1"), 3)


@pytest.mark.parametrize(
    "content",
    [
        b"\xe9\x00\x80\x81\xff",
        "naïve — “quoted” text, été and ".encode() + b"\xe9 x",
    ],
)
def test_no_encoding_is_proposed_for_what_is_no_text_or_utf_8_but_for_a_byte(
    content: bytes,
) -> None:
    assert "--encoding NAME" in decoding.remedy(content, content.index(b"\xe9"))


@pytest.mark.parametrize("name", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("text", ["hello there\n", "床前明月光、疑是地上霜。\n"])
def test_wide_text_is_known_with_or_without_its_mark(name: str, text: str) -> None:
    assert decoding.wide(text.encode(name)) == name[:6]


@pytest.mark.parametrize(
    "content", [b"", b"\0\1\2", b"a\0b", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", b"\0" * 99]
)
def test_what_is_no_text_is_no_wide_text(content: bytes) -> None:
    assert decoding.wide(content) is None
