"""Decodes annotation files and lists, in the encodings that annotators' machines have."""

import codecs
import re

_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark is the first half of this one
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_DECLARATION = re.compile(r"\s*<\?xml\s[^>]*?\?>")
_DECLARED = re.compile(rb"\s*<\?xml\b[^>]*?\bencoding\s*=\s*[\"']\s*([A-Za-z0-9._:\-]+)\s*[\"']")
_SUPERSETS = {
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
    "ascii": "utf-8",
}
"""Codecs of which files often hold more than the name allows, and those that hold it all."""
_NOT_OF_FILES = ("idna", "punycode", "unicode_escape", "raw_unicode_escape", "utf_7", "undefined")
"""Codecs of Python that no annotation tool writes, and that read plain text as something else."""


def decode_text(content: bytes) -> str:
    """Decodes a text file in UTF-8, or in UTF-16 or UTF-32 where it begins with their mark or looks like it.

    Raises:
        UnicodeDecodeError: when it is none of these.
    """
    mark, codec = _unicode_form(content)
    return content[mark:].decode(codec)


def decode_xml(content: bytes) -> str:
    """Decodes XML by its byte order mark, else by the codec that its first line names, else as UTF-8.

    Returns:
        The text; the declaration is blanked out, so that parsers do not look for its codec again, and lines keep their numbers.

    Raises:
        LookupError: when the first line names a codec that Python does not have, or that no tool writes.
        UnicodeDecodeError: when the bytes are not of that codec.
    """
    mark, codec = _unicode_form(content)
    declared = _DECLARED.match(content[:400])
    if declared and not mark and codec == "utf-8":
        codec = _known_codec(declared[1].decode("ascii"))
    text = _decoded_text(content[mark:], codec)
    declaration = _DECLARATION.match(text)
    return re.sub(r"[^\r\n]", " ", declaration[0]) + text[declaration.end() :] if declaration else text


def _unicode_form(content: bytes) -> tuple[int, str]:
    """Returns the length of the byte order mark, 0 without one, and the form of Unicode that the first bytes show."""
    for mark, codec in _BOMS:
        if content.startswith(mark):
            return len(mark), codec
    first = content[:4]
    # Annotations and lists begin with ASCII: zeros show how many bytes a character has.
    if len(first) == 4 and first[:3] == b"\0\0\0" and first[3]:
        return 0, "utf-32-be"
    if len(first) == 4 and first[1:] == b"\0\0\0" and first[0]:
        return 0, "utf-32-le"
    if len(first) >= 2 and first[0] == 0 and first[1]:
        return 0, "utf-16-be"
    if len(first) >= 2 and first[1] == 0 and first[0]:
        return 0, "utf-16-le"
    return 0, "utf-8"


def _known_codec(name: str) -> str:
    known = codecs.lookup(name).name.replace("-", "_")
    if known in _NOT_OF_FILES or (known.startswith("cp") and "<?xml".encode(known) != b"<?xml"):
        raise LookupError(f"{name} is not an encoding of XML files")
    # The declaration could be read byte by byte, so the file is not in UTF-16, whatever some tools write there.
    return "utf-8" if known.startswith(("utf_16", "utf_32", "utf_8")) else known


def _decoded_text(content: bytes, codec: str) -> str:
    try:
        return content.decode(codec)
    except UnicodeDecodeError:
        if codec not in _SUPERSETS:
            raise
    return content.decode(_SUPERSETS[codec])
