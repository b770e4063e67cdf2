import numpy as np
import torch
from PIL import Image


def pil_to_tensor(image: Image.Image) -> torch.Tensor:
    """Channels first."""
    return torch.as_tensor(np.array(image)).permute(2, 0, 1)
