"""Lists COCO's classes: 80 names, and their ids, which have gaps."""

_ROWS = """
1 person|2 bicycle|3 car|4 motorcycle|5 airplane|6 bus|7 train|8 truck|9 boat|10 traffic light|11 fire hydrant
13 stop sign|14 parking meter|15 bench|16 bird|17 cat|18 dog|19 horse|20 sheep|21 cow|22 elephant|23 bear|24 zebra
25 giraffe|27 backpack|28 umbrella|31 handbag|32 tie|33 suitcase|34 frisbee|35 skis|36 snowboard|37 sports ball
38 kite|39 baseball bat|40 baseball glove|41 skateboard|42 surfboard|43 tennis racket|44 bottle|46 wine glass|47 cup
48 fork|49 knife|50 spoon|51 bowl|52 banana|53 apple|54 sandwich|55 orange|56 broccoli|57 carrot|58 hot dog|59 pizza
60 donut|61 cake|62 chair|63 couch|64 potted plant|65 bed|67 dining table|70 toilet|72 tv|73 laptop|74 mouse
75 remote|76 keyboard|77 cell phone|78 microwave|79 oven|80 toaster|81 sink|82 refrigerator|84 book|85 clock|86 vase
87 scissors|88 teddy bear|89 hair drier|90 toothbrush
"""

COCO = {int(row.split(" ", 1)[0]): row.split(" ", 1)[1] for row in _ROWS.strip().replace("\n", "|").split("|")}
"""COCO's category id, 1..90 with ten gaps -> name, as in the annotations of 2014 and 2017."""

NOT_USED = "N/A"
"""The name of an id that COCO left out. torchvision's detectors have a logit for each of these ids."""


def coco_classes(count: int) -> tuple[tuple[str, ...], tuple[int, ...]] | tuple[None, None]:
    """Returns the names and the category ids of a COCO detector's labels, or (None, None) if the count is not COCO's.

    Args:
        count: the number of classes: 80, or 90 with the ids that COCO left out (torchvision).
    """
    if count not in (len(COCO), max(COCO)):
        return None, None
    ids = tuple(COCO) if count == len(COCO) else tuple(range(1, max(COCO) + 1))
    return tuple(COCO.get(i, NOT_USED) for i in ids), ids
