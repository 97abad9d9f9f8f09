"""PyTorch on one thread, as the program itself runs it: small matrices only get slower on more, most of all on busy machines."""

import torch

torch.set_num_threads(1)
