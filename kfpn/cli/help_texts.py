"""Holds what `--help` says of the commands."""

from kfpn import __version__
from kfpn.cli.exports import EXPORTS
from kfpn.data.formats import describe_formats

DESCRIPTION = f"""\
kfpn {__version__}: Faster R-CNN with a Feature Pyramid Network, in Keras 3.

Look at data, train, measure and use:
  kfpn data my_folder
  kfpn train --strategy mirrored
  kfpn evaluate --workdir runs/shapes
  kfpn predict --workdir runs/shapes photo.jpg --output detected
  kfpn demo --workdir runs/shapes

With weights that others trained (torchvision, detectron2, keras.applications):
  kfpn import-weights fasterrcnn_resnet50_fpn_coco-258fb6c6.pth --output runs/coco
  kfpn list-pretrained

Each command has a --help of its own."""

HELP = {
    "train": """\
Train a detector, evaluate it and keep everything in a work directory.

Without options: the built-in shapes, minutes on a CPU. The same command again goes on where it stopped:
  kfpn train --strategy mirrored

Your own data, a folder or files with their form before the colon:
  kfpn train --data my_folder
  kfpn train --data coco:train.json,images --val-data coco:val.json,images
  kfpn train --data voc:my_folder --steps 3000
  kfpn train --data my_folder --mask                 # instance segmentation: data with masks, a mask for each detection
  kfpn train --data my_folder --model.cascade        # tighter boxes, by three box heads one after the other

Masks of all objects, without classes (docs/segments.md):
  kfpn train --task segments --workdir runs/objects
  kfpn train --task segments --data my_folder --workdir runs/my_objects --minutes 60

The preset auto looks at the data, the machine and the weights, and chooses the size of the input, anchors, network, batch, rate and
steps. Each choice is printed with its reason and kept in config.json. An option that is given wins. The defaults below are not its.

From weights that are trained already (stem and conv2_x stay frozen, as in the paper):
  kfpn train --init fasterrcnn_resnet50_fpn_coco-258fb6c6.pth --data coco:train.json,images --val-data coco:val.json,images

COCO as detectron2 trains its 1x model (--preset paper: as in the paper; --preset torchvision):
  kfpn train --preset detectron2_1x --init R-50.pkl --data coco:annotations/instances_train2017.json,train2017 \\
    --val-data coco:annotations/instances_val2017.json,val2017

The forms of --data and --val-data:
"""
    + describe_formats(),
    "data": """\
Show what a data set holds: images, objects of each class, sizes, what was left out and why; and draw a contact sheet.

Nothing is written into the data's folder. Examples:
  kfpn data my_folder
  kfpn data yolo:my_folder/data.yaml --output sheet.png --images 60
  kfpn data my_folder --augmented --input.crop .5 --input.color-jitter .4    # what such a training will see
  kfpn data my_folder --augmented --workdir runs/my_folder                   # what that run sees""",
    "evaluate": """\
Measure a trained detector: COCO's twelve figures and the AP of each class.

Of a run with --task segments: the average recall of 10, 100 and 1000 segments.

Examples:
  kfpn evaluate --workdir runs/shapes --json figures.json
  kfpn evaluate --workdir runs/cars --data coco:test.json,images
  kfpn evaluate --workdir runs/cars --scales 480,640,800 --flip
  kfpn evaluate --workdir runs/birds --tiles 640 --overlap .2    # large photographs of small objects, in tiles
  kfpn evaluate --workdir runs/shapes --proposals""",
    "report": """\
Write what a detector gets right and wrong into one HTML file: kinds of errors, worst images, curves, confusions, calibration.

Examples:
  kfpn report --workdir runs/shapes
  kfpn report --workdir runs/cars --data coco:test.json,images --output cars.html
  kfpn report --workdir runs/cars --detections found.json    # of kfpn evaluate --detections: the network does not run again
  kfpn report runs/before runs/after                         # two runs beside each other: what became better, what worse""",
    "predict": """\
Detect objects in images and videos: an annotated PNG or MP4 of each, and detections.json in COCO's results form.

Of a run with --task segments: the 20 best segments of each image.

Example:
  kfpn predict --workdir runs/shapes photos/ one.jpg --output detected --min-score 0.7
  kfpn predict --workdir runs/cars street.mp4 https://example.org/car.jpg --output detected
  find photos -name "*.jpg" | kfpn predict --workdir runs/cars - --output detected
  kfpn predict --workdir runs/cars photos/ --output detected --scales 480,640,800 --flip
  kfpn predict --workdir runs/birds photos/ --output detected --tiles 640""",
    "visualize": """\
Draw what happens inside a detector: one page an image, with the maps of C2-C5 and P2-P6, objectness, proposals and RoIs.

Of a run with --task segments: the best segments of each level and of each kind of window.

Example:
  kfpn visualize --workdir runs/shapes photo.jpg --output photo_pyramid.png""",
    "demo": """\
Serve a page to try a detector on in a browser: drop pictures in, and boxes and masks come out. It needs pip install 'kfpn[demo]'.

Only this machine reaches the page, and nothing is sent anywhere. Examples:
  kfpn demo --workdir runs/shapes
  kfpn demo --workdir runs/shapes --host 0.0.0.0 --port 8080    # for all machines of the network, without a password""",
    "replay-nan": """\
Compute the step again at which a run met a loss that was not finite, and say which layer went first.

Example:
  kfpn replay-nan --workdir runs/shapes""",
    "proposals": """\
Write the proposals of a trained detector's RPN, for `kfpn train --proposals`: Fast R-CNN on fixed proposals.

Of the images the run was trained on and of those it was evaluated on. Example:
  kfpn proposals --workdir runs/shapes --output shapes.npz
  kfpn train --proposals shapes.npz --workdir runs/fast""",
    "import-weights": """\
Make a work directory of weights that torchvision, detectron2 or keras.applications trained.

The file says what it is, and the network's settings come with it. Examples:
  kfpn import-weights fasterrcnn_resnet50_fpn_coco-258fb6c6.pth --output runs/coco
  kfpn import-weights torchvision:fasterrcnn_resnet50_fpn_coco --output runs/coco
  kfpn import-weights model_final_280758.pkl --output runs/d2 --model.score-threshold 0.3""",
    "export": f"""\
Write a trained detector for servers: {", ".join(f"{export.name} ({export.runs_in})" for export in EXPORTS)}.

Examples:
  {(chr(10) + "  ").join(export.example for export in EXPORTS)}""",
    "benchmark": """\
Time models on the same image, in turns: work directories, SavedModels, ONNX files.

Example:
  kfpn benchmark runs/coco served/coco coco.onnx --size 512 512""",
    "list-pretrained": """\
List the checkpoints that are known to fit: name, what it is, box AP, size, licence, address.""",
}
"""Command -> its text: the first line stands in the list of commands, all of it in the help of the command itself."""
