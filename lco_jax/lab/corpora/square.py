"""Small square pictures, as emoji and clip art are kept."""

from PIL import Image

from lco_jax.data.media.images import encode_image

SIDE_PX = 56
"""Four tokens of Qwen2.5-VL, the smallest image that its vision tower reads without resizing."""


def square_png(picture: Image.Image) -> bytes:
    """A square PNG with the picture in its middle, on white."""
    scale = SIDE_PX / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    # Filtered with the colours weighted by opacity, or edges would show what lies under them.
    small = (
        picture.convert("RGBA").convert("RGBa").resize((width, height), Image.Resampling.LANCZOS)
    )
    square = Image.new("RGBA", (SIDE_PX, SIDE_PX), "white")
    square.alpha_composite(small.convert("RGBA"), ((SIDE_PX - width) // 2, (SIDE_PX - height) // 2))
    return encode_image(square.convert("RGB"), optimize=True)
