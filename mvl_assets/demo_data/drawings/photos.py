"""Photos that ship inside scikit-image, with captions and questions of our own about what each shows.

Only files inside the package are used (nothing is downloaded, and the package's code is not imported). A photo is
shown whole at several sizes, so that what is written about it stays true.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from random import Random

from PIL import Image

from mvl_assets.demo_data.drawings.drawing import Drawing, DrawnQAPair
from mvl_assets.errors import MvlError

MAX_EDGES = (640, 224, 400, 288, 512)


@dataclass(frozen=True, slots=True)
class SkimagePhoto:
    """`short_caption` is one plain sentence, `detailed_caption` tells more; `qa_facts`: (question, short answer)."""

    file_name: str
    short_caption: str
    detailed_caption: str
    qa_facts: tuple[tuple[str, str], ...]
    is_greyscale: bool = False


PHOTOS: tuple[SkimagePhoto, ...] = (
    SkimagePhoto(
        "astronaut.png",
        "A smiling astronaut in an orange space suit.",
        (
            "An astronaut with short hair smiles in an orange space suit with a flag behind her. A "
            "white helmet with a dark visor lies in front, and a model of a space shuttle stands in "
            "the background."
        ),
        (
            ("What colour is the space suit?", "orange"),
            ("What is the job of the person in the picture?", "astronaut"),
            ("What vehicle is shown as a model in the background?", "space shuttle"),
        ),
    ),
    SkimagePhoto(
        "camera.png",
        "A man in a dark coat looks through a camera on a tripod.",
        (
            "A grey photograph of a man in a dark coat who bends over a camera on a tripod. He stands"
            " on an open lawn, and buildings are seen far away."
        ),
        (
            ("What does the man look through?", "camera"),
            ("What does the camera stand on?", "tripod"),
            ("Is the man's coat dark or light?", "dark"),
        ),
        is_greyscale=True,
    ),
    SkimagePhoto(
        "chelsea.png",
        "A close view of the face of a tabby cat.",
        (
            "The face of a tabby cat fills the picture. It has orange and brown fur, green eyes, a "
            "pink nose and long white whiskers."
        ),
        (
            ("Which animal is in the picture?", "cat"),
            ("What colour are the animal's eyes?", "green"),
            ("How many eyes are seen?", "2"),
        ),
    ),
    SkimagePhoto(
        "coffee.png",
        "A cup of espresso on a red saucer with a spoon.",
        (
            "A small red cup with espresso stands on a red saucer. A metal spoon lies beside it, and "
            "the table is made of reddish brown wood."
        ),
        (
            ("What is in the cup?", "coffee"),
            ("What lies on the saucer beside the cup?", "spoon"),
            ("What is the table made of?", "wood"),
        ),
    ),
    SkimagePhoto(
        "coins.png",
        "Rows of old coins on a dark background.",
        (
            "A grey photograph of twenty-four old coins in four rows of six on a dark background. The"
            " coins differ in size and show worn heads and figures."
        ),
        (
            ("How many rows of coins are there?", "4"),
            ("How many coins are there?", "24"),
            ("What objects are laid out in rows?", "coins"),
        ),
        is_greyscale=True,
    ),
    SkimagePhoto(
        "color.png",
        "A round colour wheel on a black background.",
        (
            "A colour wheel on a black background. The colours run through the whole rainbow around "
            "the circle and grow pale towards a white centre."
        ),
        (
            ("What colour is the background?", "black"),
            ("What colour is the centre of the wheel?", "white"),
            ("What shape is the wheel?", "circle"),
        ),
    ),
    SkimagePhoto(
        "horse.png",
        "The black silhouette of a standing horse.",
        (
            "A black silhouette of a horse on a plain ground. The horse stands sideways with its head"
            " to the right and its tail to the left."
        ),
        (
            ("Which animal is shown?", "horse"),
            ("What colour is the silhouette?", "black"),
            ("On which side of the picture is the animal's head?", "right"),
        ),
    ),
    SkimagePhoto(
        "hubble_deep_field.jpg",
        "Many galaxies against the black of space.",
        (
            "A view of deep space taken with a telescope. Hundreds of galaxies appear as small bright"
            " spots, whitish, orange and blue, on a black background."
        ),
        (
            ("What colour is the background?", "black"),
            ("What do the bright spots show?", "galaxies"),
            ("What kind of instrument takes such a picture?", "telescope"),
        ),
    ),
    SkimagePhoto(
        "ihc.png",
        "A stained tissue section under the microscope.",
        (
            "A tissue section seen through a microscope. Brown staining marks the cells of round "
            "glands, and blue dots between them are nuclei."
        ),
        (
            ("Which instrument was used to see this?", "microscope"),
            ("Which colour is the staining of the glands?", "brown"),
            ("What colour are the nuclei between the glands?", "blue"),
        ),
    ),
    SkimagePhoto(
        "moon.png",
        "The surface of the Moon with small craters.",
        (
            "A grey picture of the surface of the Moon. A bright round crater lies in the upper left,"
            " and hills cast dark shadows."
        ),
        (
            ("Which celestial body is shown?", "Moon"),
            ("What are the round hollows called?", "craters"),
            ("In which part of the picture is the bright round crater?", "upper left"),
        ),
        is_greyscale=True,
    ),
    SkimagePhoto(
        "motorcycle_left.png",
        "A red motorcycle parked in a garage.",
        (
            "A red and black motorcycle stands on its side stand on a concrete floor in a garage. "
            "Behind it are a wooden bench and shelves with boxes."
        ),
        (
            ("What colour is the motorcycle?", "red"),
            ("Where is the motorcycle parked?", "garage"),
            ("How many wheels does the motorcycle have?", "2"),
        ),
    ),
    SkimagePhoto(
        "page.png",
        "A photographed page of text about segmentation.",
        (
            'A photograph of a printed page with the heading "Region-based segmentation". A paragraph'
            " about markers of coins and background follows, and below it a line of code."
        ),
        (
            ("What is the heading of the page?", "Region-based segmentation"),
            ("What objects are named together with the background?", "coins"),
            ('Which word follows "histogram of grey"?', "values"),
        ),
        is_greyscale=True,
    ),
    SkimagePhoto(
        "retina.jpg",
        "A photograph of the inside of an eye.",
        (
            "A round orange-red photograph of a retina on a black background. Fine blood vessels "
            "spread from the bright optic disc at the left."
        ),
        (
            ("Which organ is shown from the inside?", "eye"),
            ("On which side is the bright optic disc?", "left"),
            ("What are the fine branching lines?", "blood vessels"),
        ),
    ),
    SkimagePhoto(
        "rocket.jpg",
        "A rocket on its launch pad at dusk.",
        (
            "A tall white rocket stands upright on its launch pad at dusk. Bright lamps shine at its "
            "foot, and thin metal towers stand around it under a dark blue sky."
        ),
        (
            ("What stands on the launch pad?", "rocket"),
            ("What colour is the sky?", "blue"),
            ("What colour is the rocket?", "white"),
        ),
    ),
    SkimagePhoto(
        "brick.png",
        "A wall of bricks in grey.",
        ("A grey photograph of rows of bricks with pale joints between them. The bricks fill the whole picture."),
        (
            ("What fills the picture?", "bricks"),
            ("Are the joints paler or darker than the bricks?", "paler"),
            ("Is the picture in colour?", "no"),
        ),
        is_greyscale=True,
    ),
    SkimagePhoto(
        "grass.png",
        "Blades of grass seen from above.",
        (
            "A grey photograph of grass seen from above. Thin blades and small leaves lie in all "
            "directions and fill the whole picture."
        ),
        (
            ("Which plant covers the ground?", "grass"),
            ("From where is the ground seen?", "above"),
            ("Is the picture in colour?", "no"),
        ),
        is_greyscale=True,
    ),
    SkimagePhoto(
        "gravel.png",
        "Gravel seen from above.",
        ("A grey photograph of gravel seen from above. Small angular stones fill the whole picture."),
        (
            ("What covers the ground?", "gravel"),
            ("Are the stones small or large?", "small"),
            ("Is the picture in colour?", "no"),
        ),
        is_greyscale=True,
    ),
    SkimagePhoto(
        "chessboard_RGB.png",
        "A black and white chessboard pattern.",
        "A flat chessboard pattern of black and white squares in eight rows and eight columns.",
        (
            ("Which two colours does the pattern have?", "black and white"),
            ("How many rows does the pattern have?", "8"),
            ("What shape are the fields?", "square"),
        ),
        is_greyscale=True,
    ),
    SkimagePhoto(
        "logo.png",
        "A round logo in green and orange.",
        (
            "A round logo in which a pale drawing of a snake's head lies over green and orange areas,"
            " parted by a winding white line."
        ),
        (
            ("What shape is the logo?", "circle"),
            ("Which colour does the logo have besides green?", "orange"),
            ("What colour is the winding line?", "white"),
        ),
    ),
)


@lru_cache(maxsize=1)
def find_skimage_data_dir() -> Path:
    """Return the folder of scikit-image's images.

    Raises:
        MvlError: The package is not installed.
    """
    spec = find_spec("skimage")
    if spec is None or spec.origin is None:
        raise MvlError(
            "the photos of the demo data ship inside scikit-image, which is not installed",
            hint="pip install 'mvl[demo-data]'",
        )
    return Path(spec.origin).parent / "data"


def load_photo(rng: Random, image_index: int) -> Drawing:
    """Return photo number `image_index` (modulo the number of photos), at another size in every round."""
    photo_info = PHOTOS[image_index % len(PHOTOS)]
    round_index = image_index // len(PHOTOS)
    with Image.open(find_skimage_data_dir() / photo_info.file_name) as source:
        image = flatten_to_rgb(source)
    max_edge = MAX_EDGES[round_index % len(MAX_EDGES)] - 8 * (round_index // len(MAX_EDGES))
    image.thumbnail((max_edge, max_edge), Image.Resampling.BILINEAR, reducing_gap=2.0)
    detailed_caption = photo_info.detailed_caption
    qa_pairs = [DrawnQAPair(question, answer, detailed_caption) for question, answer in photo_info.qa_facts]
    rng.shuffle(qa_pairs)
    return Drawing(image, tuple(qa_pairs), detailed_caption, needs_colour=not photo_info.is_greyscale, is_photo=True)


def get_short_caption(image_index: int) -> str:
    """Return the one plain sentence about the photo that `load_photo(…, index)` shows."""
    return PHOTOS[image_index % len(PHOTOS)].short_caption


def flatten_to_rgb(image: Image.Image) -> Image.Image:
    """Return the image as RGB, with transparent parts on white."""
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
