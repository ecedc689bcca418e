"""Builds the page of the demo: what is on it, and what happens when its user does something."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from kfpn.demo.demo_detector import DemoDetector, TriedPicture, chosen, drawn_to_show
from kfpn.demo.quiet_gradio import quiet_gradio
from kfpn.inference.detections import Detections

gr: Any = quiet_gradio()
CAMERA = "camera"
HEADERS = ("class", "score", "y1", "x1", "y2", "x2")
SAVE_IN_BROWSER = "file => { const link = document.createElement('a'); link.href = file.url; link.download = file.orig_name; link.click(); }"
"""Lets the browser keep a file, which a component holds."""
Tried = Mapping[Path, TriedPicture]


class PageAnswers:
    """Answers what a user does. Each method takes values of components and returns values of components.

    Args:
        detector: looks at the pictures.
        folder: takes the files that the page shows or gives; whoever made it removes it.
    """

    def __init__(self, detector: DemoDetector, folder: Path) -> None:
        self.detector = detector
        self.folder = folder

    def look(
        self, files: Sequence[str] | None, snapshot: str | None, shown: str | None, tried: Tried, progress: Any
    ) -> tuple[Any, ...]:
        """Looks at what is new among the files and the camera's picture; the newest is shown."""
        paths = [Path(file) for file in files or ()] + ([self._named(snapshot)] if snapshot else [])
        pictures, errors = self.detector.look_at_all(progress.tqdm(paths, desc="detect", unit="picture"), tried)
        new = [path for path in pictures if path not in tried]
        kept = Path(shown) if shown and Path(shown) in pictures else None
        current = next(iter(new), kept or next(iter(pictures), None))
        menu = gr.Dropdown(choices=menu_of(pictures), value=current and str(current))
        return pictures, menu, gr.Textbox("\n".join(errors), visible=bool(errors))

    def _named(self, snapshot: str) -> Path:
        """Returns a copy of the camera's picture that is called so."""
        content = Path(snapshot).read_bytes()
        path = self.folder / hashlib.sha256(content).hexdigest() / f"{CAMERA}{Path(snapshot).suffix}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        return path

    def show(self, tried: Tried, shown: str | None, *choice: Any) -> tuple[Any, ...]:
        """Draws the picture with the chosen detections, and lists them. The network does not run."""
        picture = shown_picture(tried, shown)
        if picture is None:
            return None, "", []
        kept = self._chosen(picture, *choice)
        rows = [
            [name, round(float(score), 3), *(round(float(side), 1) for side in box)]
            for name, score, box in zip(kept.names, kept.scores, kept.boxes, strict=True)
        ]
        text = f"**{len(kept)}** of {len(picture.detections)} detections are shown"
        return drawn_to_show(kept, self.detector.pixels(picture)), text, rows

    def _chosen(
        self, picture: TriedPicture, least: float | None, labels: Sequence[int] | None, own_thresholds: bool = False
    ) -> Detections:
        thresholds = self.detector.thresholds
        return chosen(
            picture.detections, thresholds if own_thresholds and thresholds else score_of(least), labels or ()
        )

    def save_picture(self, tried: Tried, shown: str | None, *choice: Any) -> str | None:
        """Writes the picture in its own size, with the chosen detections."""
        picture = shown_picture(tried, shown)
        if picture is None:
            return None
        path = self._new_file(f"{picture.path.stem}_detections.png")
        kept = self._chosen(picture, *choice)
        Image.fromarray(kept.draw(self.detector.pixels(picture))).save(path)
        return str(path)

    def save_rows(self, tried: Tried, *choice: Any) -> str:
        """Writes the chosen detections of all pictures, in the form of `kfpn predict`."""
        rows = []
        for image_id, (name, place) in enumerate(menu_of(tried), start=1):  # two pictures can have one name
            kept = self._chosen(tried[Path(place)], *choice)
            rows += [{**row, "file_name": name} for row in kept.to_coco(image_id)]
        path = self._new_file("detections.json")
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        return str(path)

    def draw_pyramid(self, tried: Tried, shown: str | None, least: float | None, is_open: bool) -> str | None:
        """Draws what `kfpn visualize` draws of the picture, if the tab is open and it is not there already."""
        picture = shown_picture(tried, shown)
        if picture is None or not is_open:
            return None
        key = hashlib.sha256(os.fsencode(f"{picture.path} {score_of(least)}")).hexdigest()
        page = self.folder / key / f"{picture.path.stem}_pyramid.png"
        if not page.exists():
            page.parent.mkdir(exist_ok=True)
            self.detector.draw_pyramid(picture, score_of(least), page)
        return str(page)

    def _new_file(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder)) / name


def shown_picture(tried: Tried, shown: str | None) -> TriedPicture | None:
    """Returns the picture that the menu shows; None where there is none."""
    return tried.get(Path(shown)) if shown else None


def score_of(least: float | None) -> float:
    """Returns the least score of the slider; None, of a number field that was emptied, hides nothing."""
    return 0.0 if least is None else least


def menu_of(tried: Tried) -> list[tuple[str, str]]:
    """Returns the name and the path of each picture; of a name that is there again, with a number."""
    menu: list[tuple[str, str]] = []
    seen: dict[str, int] = {}
    for path, picture in tried.items():
        number = seen[picture.name] = seen.get(picture.name, 0) + 1
        menu.append((picture.name if number == 1 else f"{picture.name} ({number})", str(path)))
    return menu


def build_page(answers: PageAnswers, min_score: float) -> Any:
    """Returns the page, as Gradio's `Blocks`.

    Args:
        answers: of its events.
        min_score: where the slider stands at first.
    """
    with gr.Blocks(title="kfpn demo", analytics_enabled=False, fill_width=True) as page:
        tried, is_open, kept = gr.State({}), gr.State(False), gr.File(visible=False)
        gr.Markdown(
            f"# {answers.detector.run.path.resolve().name}\nPictures go to this program only, and are removed when it ends."
        )
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                files, snapshot = _inputs()
                shown = gr.Dropdown(label="Picture", choices=[], interactive=True, elem_id="shown")
                errors = gr.Textbox(label="Not read", visible=False, interactive=False, elem_id="errors")
                choice = _choice(answers.detector, min_score)
            with gr.Column(scale=3, min_width=400), gr.Tabs():
                with gr.Tab("Detections") as detections:
                    outputs, buttons = _outputs()
                with gr.Tab("Pyramid") as pyramid:
                    drawn = gr.Image(
                        show_label=False, interactive=False, buttons=["download", "fullscreen"], elem_id="pyramid"
                    )
        wait = {
            "concurrency_limit": 1,
            "concurrency_id": "detector",
            "api_visibility": "private",
            "trigger_mode": "always_last",
        }
        quick = {"show_progress": "hidden", "api_visibility": "private", "trigger_mode": "always_last"}
        to_show, to_inspect = [tried, shown, *choice], [tried, shown, choice[0], is_open]

        def look(files: Any, snapshot: Any, shown: Any, tried: Any, progress: Any = gr.Progress()) -> Any:  # noqa: B008
            return answers.look(files, snapshot, shown, tried, progress)

        looked = gr.on(
            [files.change, snapshot.change], look, [files, snapshot, shown, tried], [tried, shown, errors], **wait
        )
        looked.then(answers.show, to_show, outputs, **quick).then(answers.draw_pyramid, to_inspect, drawn, **wait)
        gr.on([shown.input, *(one.change for one in choice)], answers.show, to_show, outputs, **quick)
        gr.on([shown.input, choice[0].release], answers.draw_pyramid, to_inspect, drawn, **wait)
        detections.select(lambda: False, None, is_open, **quick)
        pyramid.select(lambda: True, None, is_open, **quick).then(answers.draw_pyramid, to_inspect, drawn, **wait)
        for button, answer, inputs in zip(
            buttons, (answers.save_picture, answers.save_rows), ([tried, shown], [tried]), strict=True
        ):
            button.click(answer, [*inputs, *choice], kept, **quick).then(None, kept, None, js=SAVE_IN_BROWSER)
    return page


def _inputs() -> tuple[Any, Any]:
    with gr.Tabs():
        with gr.Tab("Files"):
            files = gr.File(label="Drop pictures here", file_count="multiple", height=180, elem_id="files")
        with gr.Tab("Camera"):
            snapshot = gr.Image(
                label="Camera",
                sources=["webcam"],
                type="filepath",
                format="png",
                buttons=[],
                webcam_options=gr.WebcamOptions(mirror=False),
                elem_id="camera",
            )
    return files, snapshot


def _choice(detector: DemoDetector, min_score: float) -> list[Any]:
    """Returns the components that choose among detections: what `PageAnswers._chosen` takes."""
    least = gr.Slider(0.0, 1.0, min_score, step=0.01, label="Least score", elem_id="least")
    names = [(name, label) for label, name in enumerate(detector.class_names)]
    labels = gr.Dropdown(names, value=[], multiselect=True, label="Classes; none stands for all", elem_id="classes")
    if detector.thresholds is None:
        return [least, labels]
    own = gr.Checkbox(True, label="Each class has its own least score (kfpn evaluate --best-thresholds)", elem_id="own")
    return [least, labels, own]


def _outputs() -> tuple[list[Any], list[Any]]:
    """Returns the components that `PageAnswers.show` fills, and the two buttons that save."""
    with gr.Row():
        with gr.Column(scale=3, min_width=300):
            image = gr.Image(
                show_label=False, interactive=False, format="png", buttons=["fullscreen"], elem_id="picture"
            )
        with gr.Column(scale=2, min_width=300):
            count = gr.Markdown(elem_id="count")
            types = ["str", *["number"] * (len(HEADERS) - 1)]
            table = gr.Dataframe(
                headers=list(HEADERS),
                datatype=types,
                type="array",
                interactive=False,
                show_label=False,
                elem_id="table",
            )
            with gr.Row():
                buttons = [
                    gr.Button("Save picture (PNG)", elem_id="save-picture"),
                    gr.Button("Save detections (COCO JSON)", elem_id="save-rows"),
                ]
    return [image, count, table], buttons
