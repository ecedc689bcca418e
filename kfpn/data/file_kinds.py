"""Knows by which bytes files of many kinds begin."""

IMAGES = {"JPEG": b"\xff\xd8\xff", "PNG": b"\x89PNG\r\n\x1a\n", "GIF": b"GIF8", "BMP": b"BM"}
"""The kinds of images that reach a decoder in a served model, and how their files begin.

TensorFlow's decoders look at the bytes themselves, whatever their names say. They know the same beginnings, and that of WebP:
an animated WebP file ends the process there."""
ARCHIVES = (
    (0, b"\x1f\x8b", "a gzip archive"),
    (0, b"PK\x03\x04", "a zip archive"),
    (0, b"PK\x05\x06", "an empty zip archive"),
    (0, b"BZh", "a bzip2 archive"),
    (0, b"\xfd7zXZ", "an xz archive"),
    (0, b"7z\xbc\xaf", "a 7z archive"),
    (0, b"Rar!", "a rar archive"),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (257, b"ustar", "a tar archive"),
)
"""(offset in bytes, bytes there, name)."""
SENT_BY_MISTAKE = (
    (0, b"RIFF", "a RIFF file"),
    (8, b"WEBP", "a WebP file"),
    (0, b"II*\0", "a TIFF file"),
    (0, b"MM\0*", "a TIFF file"),
    (4, b"ftyp", "a HEIC, AVIF or MP4 file"),
    (4, b"jP", "a JPEG 2000 file"),
    (0, b"%PDF", "a PDF file"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"\0\0\1\0", "an icon file"),
    (0, b"<", "SVG, XML or HTML text"),
    *((0, start, "base64 text") for start in (b"data:", b"/9j/", b"iVBORw0KGgo", b"R0lGOD", b"Qk0")),
)
"""What people send to a served model in place of those images, in the same form. The later rows are preferred."""
