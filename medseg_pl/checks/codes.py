"""What `medseg check` can find: every code with its level, its meaning and its remedy. Codes stay the same."""

from __future__ import annotations

from typing import Literal, NamedTuple

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")
"""An error makes training fail or scores wrong, a warning is probably a fault, a note is worth knowing."""


class Kind(NamedTuple):
    """One kind of finding.

    Attributes:
        level: How bad it is.
        meaning: What is wrong, in a line.
        remedy: What to do, as a sentence.
    """

    level: Level
    meaning: str
    remedy: str


_COPY = "Replace the file with an intact copy."
_EXPORT = "Export the mask again from the annotation tool, as PNG or NIfTI with one whole number for each label."
_GRID = "Export the mask again from this image, or resample it onto the image's grid with nearest neighbor."

KINDS: dict[str, Kind] = {
    # files
    "no-cases": Kind("error", "no case was found", "Check the folder, or say with --layout how it is laid out."),
    "empty-file": Kind("error", "a file of zero bytes", _COPY),
    "truncated-png": Kind("error", "a PNG that ends too early", _COPY),
    "truncated-jpeg": Kind("error", "a JPEG that ends too early", _COPY),
    "truncated-gzip": Kind("error", "a compressed file that ends too early", _COPY),
    "truncated-file": Kind("error", "a file of another format that ends too early", _COPY),
    "foreign-content": Kind(
        "error", "the content is not what the name says, and cannot be read", "Download or export the file again."
    ),
    "wrong-extension": Kind(
        "warning", "the content is of another format than the name says", "Rename the file after its content."
    ),
    "decompression-bomb": Kind(
        "error", "a small file that claims to be huge; it is not decoded", "Remove the file, or tile the image."
    ),
    "unreadable-file": Kind("error", "a file that cannot be decoded", _COPY),
    "unreadable-case": Kind("error", "a case that cannot be put together", "Correct what the message says."),
    "multi-page-tiff": Kind(
        "error",
        "a TIFF whose pages are of several sizes, or follow each other along several axes",
        "Write each image to a file of its own.",
    ),
    "broken-link": Kind("error", "a link to a file that is not there", "Restore the file, or remove the link."),
    "link-outside": Kind(
        "warning",
        "a link that leads out of the data set",
        "Copy the file into the data set if its pixels are to be used and shown.",
    ),
    "unread-file": Kind(
        "warning", "a file that may hold an image and is not read", "Convert it, or move it away if it is none."
    ),
    "repeated-link": Kind(
        "note", "a link to a folder that is read under another name", "Nothing, if the folder is one patient's."
    ),
    "ignored-file": Kind("note", "a file that holds no image", "Nothing must be done."),
    # pairs and lists
    "missing-mask": Kind("error", "an image without a mask", "Add the mask, or move the image away."),
    "missing-image": Kind("error", "a mask without an image", "Add the image, or move the mask away."),
    "bad-name": Kind("error", "a name that results cannot be written under", "Rename it."),
    "duplicate-name": Kind("error", "two files, or two rows, with one name", "Keep one of them, or rename it."),
    "pair-differs-by-case": Kind(
        "error", "an image and a mask whose names differ in capitals only", "Rename one of the two."
    ),
    "names-differ-by-case": Kind(
        "warning",
        "names that differ in capitals only, which are one name on Windows and macOS",
        "Rename one of them.",
    ),
    "listed-file-missing": Kind(
        "error", "a list names a file that does not exist", "Correct the entry, or complete the data."
    ),
    "listed-path-outside": Kind(
        "error", "a list names a file outside the data set", "Move the file inside, or set the root."
    ),
    "listing-invalid": Kind("error", "an entry of a list cannot be used", "Correct or remove the entry."),
    "unlisted-file": Kind("note", "an image that no list names", "Add it to the list, or move it away."),
    "group-unknown": Kind(
        "error",
        "the group pattern does not match, so the patient is unknown",
        "Correct the pattern so that it matches every name.",
    ),
    "shared-mask": Kind(
        "error", "a mask that belongs to several images or labels", "Make the names, or the pattern, tell them apart."
    ),
    "mask-count": Kind(
        "error", "another number of mask files than labels need", "Give each label its mask, or name the labels."
    ),
    # masks
    "mask-not-finite": Kind("error", "a mask with NaN or infinity", _EXPORT),
    "mask-not-integer": Kind("error", "a mask with values between whole numbers", _EXPORT),
    "mask-scaled": Kind(
        "warning", "a mask whose header scales its values", "Write the mask with slope 1 and intercept 0."
    ),
    "mask-colors": Kind(
        "error",
        "a mask in colors that no label claims",
        "Say with labels.colors which color is which label, or convert the mask to label values.",
    ),
    "mask-palette": Kind(
        "error",
        "a mask with a palette whose indices are no labels",
        "Convert the palette's colors to label values, or set labels.colors.",
    ),
    "mask-palette-indices": Kind(
        "note",
        "a mask with a palette; its indices are read as labels",
        "Nothing, if the indices are the labels. Other programs may show the colors instead.",
    ),
    "mask-palettes-differ": Kind(
        "error",
        "masks whose palettes give one index several colors, or one color several indices",
        "Set labels.colors, so that colors count and not indices.",
    ),
    "mask-jpeg-artifacts": Kind(
        "error",
        "a mask with the traces of JPEG compression round its values",
        "Export the mask again as PNG; if that cannot be done, set labels.tolerance.",
    ),
    "mask-lossy-format": Kind(
        "warning", "a mask in a lossy format (JPEG, WebP, JPEG 2000), which changes values", "Store masks as PNG."
    ),
    "mask-is-picture": Kind(
        "error", "a mask that looks like an image", "Check whether the image was given in place of its mask."
    ),
    "mask-0-255": Kind(
        "error",
        "a mask of 0 and 255 where labels have other values",
        "Write the labels' values into the mask, or set labels.values.",
    ),
    "ignore-value-unset": Kind(
        "error",
        "255 beside the labels' values, and nobody said what it means",
        "Set labels.ignore_value (--ignore_value 255) if it marks what nobody annotated.",
    ),
    "mask-antialiased": Kind("error", "a mask with smoothed edges", "Export the mask without smoothing."),
    "mask-unknown-value": Kind(
        "error",
        "a mask with values that no label claims",
        "Correct the mask, or name the label and its value with --labels.",
    ),
    "mask-overlap": Kind(
        "error",
        "labels overlap although the task says that they exclude each other",
        "Set labels.task to multilabel, or correct the masks.",
    ),
    "masks-all-empty": Kind("error", "no mask holds any label", "Check that the masks are those of this data set."),
    "label-never-present": Kind(
        "error", "a label that is in no mask", "Correct the label's name or value, or leave the label out."
    ),
    "label-in-one-case": Kind(
        "warning",
        "a label that is in one case only",
        "It cannot be both learned and tested: add cases or leave it out.",
    ),
    "label-in-one-patient": Kind(
        "warning", "a label of one patient only", "It cannot be both learned and tested: add patients or leave it out."
    ),
    "mask-full": Kind("warning", "a mask without background", "Check whether mask and label values are right."),
    "mask-specks": Kind(
        "warning", "specks of a few voxels beside a large structure", "Remove them if they are slips of the pen."
    ),
    "ignore-value-absent": Kind("note", "no mask holds the ignore value", "Nothing, if nothing was left open."),
    "mask-empty": Kind("note", "an empty mask", "Nothing, if there is nothing to see in the image."),
    # geometry
    "exif-one-side": Kind(
        "error",
        "EXIF turns the image or the mask but not the other",
        "Turn the pixels themselves and remove the tag (for example with exiftran or mogrify -auto-orient).",
    ),
    "exif-applied": Kind(
        "note", "EXIF turns the image; the mask fits it when turned", "Nothing here; other programs may not turn it."
    ),
    "shape-mismatch": Kind("error", "image and mask, or two channels, of different shapes", _GRID),
    "spacing-mismatch": Kind("error", "image and mask, or two channels, of different spacing", _GRID),
    "orientation-mismatch": Kind("error", "image and mask, or two channels, whose axes point elsewhere", _GRID),
    "place-unknown": Kind(
        "error", "a mask, or a channel, that does not say where it lies beside an image that does", _GRID
    ),
    "axes-turned": Kind(
        "note", "a mask, or a channel, whose axes run otherwise; it is turned exactly", "Nothing must be done."
    ),
    "affine-mismatch": Kind("error", "image and mask, or two channels, that lie elsewhere in space", _GRID),
    "slice-gap": Kind(
        "error",
        "slices that are missing, or not evenly spaced",
        "Restore the missing slices, or set data.source.uneven_slices of DicomSource to resample.",
    ),
    "slices-interpolated": Kind(
        "warning", "slices that are missing are interpolated, as the settings say", "Restore the missing slices."
    ),
    "slices-resampled": Kind(
        "note", "unevenly spaced slices are resampled to even ones, as the settings say", "Nothing must be done."
    ),
    "mixed-series": Kind(
        "error", "files of several DICOM series in one folder", "Give each series a folder of its own."
    ),
    "slices-differ": Kind(
        "error", "slices of different size, spacing or orientation", "Move away what does not belong to the volume."
    ),
    "slices-doubled": Kind("error", "two slices in one place", "Remove the copy."),
    "spacing-unset": Kind(
        "warning", "a header that gives a spacing of 0, taken for 1 mm", "Correct the header, or export the file again."
    ),
    "time-axis": Kind(
        "note",
        "a volume over time, whose points in time are read as channels",
        "Write each point in time to a file of its own, unless they are to be seen together.",
    ),
    "implausible-spacing": Kind(
        "warning", "a spacing that no scanner has", "Correct the header: lengths are in millimeters."
    ),
    "spacing-outlier": Kind(
        "warning", "a spacing far from that of the other cases", "Check the header and its unit of length."
    ),
    "orientations-differ": Kind(
        "warning",
        "volumes whose axes point elsewhere than those of most others",
        "Set data.source.slicing to axial, coronal or sagittal, or reorient the volumes.",
    ),
    "size-outlier": Kind(
        "warning", "a size far from that of the other cases", "Check whether the case belongs to the data set."
    ),
    "smaller-than-patch": Kind(
        "warning",
        "an image that fills less than half of the training patch",
        "Choose a smaller patch, or expect padding.",
    ),
    "image-mask-shift": Kind(
        "warning", "the mask fits the image better when moved", "Look at the two together; export the mask again."
    ),
    # intensities
    "no-finite-value": Kind("error", "an image of nothing but NaN or infinity", "Remove the case."),
    "constant-image": Kind("error", "an image of a single value", _COPY),
    "channels-differ": Kind(
        "error", "another number of channels than most images have", "Convert the images to the same channels."
    ),
    "not-finite": Kind(
        "warning", "an image with NaN or infinity", "Nothing must be done: they are replaced by the range's ends."
    ),
    "constant-channel": Kind("warning", "a channel of a single value", "Check whether the channel was exported."),
    "clipped": Kind(
        "warning", "intensities cut off at the top", "Convert the image again with its full range of values."
    ),
    "ct-not-rescaled": Kind(
        "warning",
        "a CT whose values are not Hounsfield units",
        "Apply the rescale slope and intercept of the DICOM files.",
    ),
    "inverted-image": Kind(
        "warning", "an image whose dark and bright are exchanged", "Invert it, as the others are (MONOCHROME1)."
    ),
    "alpha-channel": Kind(
        "warning", "transparency that hides pixels; it is dropped", "Flatten the image onto a background."
    ),
    "intensity-outlier": Kind(
        "warning", "intensities far from those of the other cases", "Check the scale of the case, and its origin."
    ),
    "monochrome1": Kind("note", "a DICOM image stored inverted; it is turned back", "Nothing must be done."),
    "alpha-opaque": Kind("note", "transparency that hides nothing; it is dropped", "Nothing must be done."),
    "intensities-differ": Kind(
        "note", "many images have another scale than others", "Normalize each case by itself (ZScore)."
    ),
    "data-types-differ": Kind(
        "note", "another depth of intensities than most images have", "Check that all come from one conversion."
    ),
    # the data set as a whole
    "patient-on-both-sides": Kind(
        "error", "a patient in training and in validation or test", "Move all cases of a patient to one side."
    ),
    "empty-side": Kind("error", "a side of the split without cases", "Correct the split."),
    "split-invalid": Kind("error", "a split that cannot be used", "Correct the split as the message says."),
    "label-missing-from-training": Kind(
        "error", "a label that no training case has", "Move a patient who has it to the training side."
    ),
    "exact-duplicate": Kind(
        "error", "the same pixels under two patients", "Remove one, or give both the same patient (group)."
    ),
    "repeated-image": Kind("warning", "the same pixels twice in one patient", "Remove one of them."),
    "near-duplicate": Kind(
        "warning",
        "nearly the same image under two patients",
        "Give both the same patient (group), so that no split parts them.",
    ),
}
