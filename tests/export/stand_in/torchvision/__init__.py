"""The few functions of torchvision that transformers needs for clips, written in torch.

torchvision's wheels load only beside the very build of torch that they were made for, so that it
is no requirement of the tests. Images are scaled by Pillow; of what is here only `resize` does more
than arithmetic, and it is the call that torchvision makes.
"""

__version__ = "0.28.0"
