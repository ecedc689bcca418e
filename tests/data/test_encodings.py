import codecs
import xml.etree.ElementTree as ElementTree

import pytest

from kfpn.data.encodings import decode_text, decode_xml


@pytest.mark.parametrize(
    "codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"]
)
def test_lists_are_read_in_all_forms_of_unicode(codec):
    assert decode_text("im0 é\r\n猫\n".encode(codec)) == "im0 é\r\n猫\n"


def test_marks_of_other_byte_order_are_read():
    assert decode_text(codecs.BOM_UTF16_BE + "ab".encode("utf-16-be")) == "ab"
    assert decode_text(codecs.BOM_UTF32_BE + "ab".encode("utf-32-be")) == "ab"
    assert decode_text(b"") == ""


def test_a_list_of_another_encoding_is_refused():
    with pytest.raises(UnicodeDecodeError):
        decode_text("caf\u00e9".encode("latin-1"))


@pytest.mark.parametrize(
    ("declared", "codec", "name"),
    [
        ("UTF-8", "utf-8", "猫é"), ("utf8", "utf-8", "猫"), ("utf-8", "utf-8-sig", "猫"), ("utf-16", "utf-16", "猫"), ("UTF-16LE", "utf-16-le", "猫"),
        ("utf-16", "utf-16-be", "猫"), ("utf-16", "utf-8", "猫"), ("GBK", "gbk", "狗"), ("gb2312", "gb2312", "猫"), ("gb2312", "gbk", "\u4e28喆"),
        ("GB18030", "gb18030", "猫😀"), ("Shift_JIS", "shift_jis", "ネコ"), ("Shift_JIS", "cp932", "①"), ("EUC-JP", "euc_jp", "犬"), ("euc-kr", "cp949", "똠"),
        ("big5", "big5", "貓"), ("windows-1251", "cp1251", "кошка"), ("ISO-8859-1", "latin-1", "é"), ("koi8-r", "koi8_r", "кот"), ("ascii", "utf-8", "é"),
    ],
)  # fmt: skip
def test_xml_is_read_by_the_codec_of_its_first_line(declared, codec, name):
    content = f"<?xml version='1.0' encoding='{declared}'?>\n<a>{name}</a>".encode(codec)
    assert ElementTree.fromstring(decode_xml(content)).text == name


def test_xml_without_a_declaration_is_utf8():
    assert ElementTree.fromstring(decode_xml("<a>猫</a>".encode())).text == "猫"
    with pytest.raises(UnicodeDecodeError):
        decode_xml("<a>狗</a>".encode("gbk"))


def test_a_declaration_may_stand_behind_empty_lines_and_keeps_the_numbers_of_lines():
    text = decode_xml(b"\n<?xml version='1.0'\n encoding=\"GBK\"?>\n<a>")
    assert text.strip() == "<a>"
    assert text.count("\n") == 3


@pytest.mark.parametrize(
    "declared", ["klingon", "base64", "rot13", "utf-7", "idna", "punycode", "unicode_escape", "cp037"]
)
def test_codecs_that_no_tool_writes_are_refused(declared):
    with pytest.raises(LookupError):
        decode_xml(f"<?xml version='1.0' encoding='{declared}'?><a/>".encode())
