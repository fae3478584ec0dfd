"""The head of LAION's aesthetic predictor and of ImageReward: embedding → number."""

from torch import Tensor, nn

from thinkdraw.errors import UserError

_LAYERS = (0, 2, 4, 6, 7)  # the numbers in between are dropout layers, which do nothing in eval mode


def read_head(path: str, weights: dict[str, Tensor], prefix: str) -> nn.Sequential:
    """Make five linear layers, without activations, from `{prefix}{0,2,4,6,7}.…`.

    Each layer has a weight and a bias, in fp32. Raises UserError unless these are all the weights with that prefix, and
    fit together.
    Schuhmann 2022, `simple_inference.py` of github.com/christophschuhmann/improved-aesthetic-predictor.
    """
    names = [(f"{prefix}{layer}.weight", f"{prefix}{layer}.bias") for layer in _LAYERS]
    expected = {name for pair in names for name in pair}
    if different := sorted(expected ^ {name for name in weights if name.startswith(prefix)}):
        raise UserError(
            f"judge {path}: {different[0]} is not as in a head of five linear layers. Give the published file."
        )
    head = nn.Sequential()
    for weight, bias in ((weights[weight], weights[bias]) for weight, bias in names):
        layer = nn.Linear(weight.shape[-1], len(weight))
        layer.weight, layer.bias = nn.Parameter(weight.float()), nn.Parameter(bias.float())
        head.append(layer)
    sizes = [len(weights[name]) for name, _ in names]
    if [*(weights[name].shape[-1] for name, _ in names[1:]), 1] != sizes:
        raise UserError(f"judge {path}: its layers give {sizes} numbers and do not fit together. Copy it again.")
    return head.eval().requires_grad_(False)
