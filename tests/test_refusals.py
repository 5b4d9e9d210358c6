"""What cannot work is refused before the first iteration, with what was given, what is allowed and what to change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator
from skimage.transform import radon
from small import NET, QUICK, picture, quick_fit

import dip

GRAY, RGB = picture((8, 9)), picture((8, 9, 3))
KNOWN = np.ones((8, 9), bool)
NAN, INF = RGB.copy(), RGB.copy()
NAN[2, 3, 1], INF[0, 0] = np.nan, np.inf
NAN_ALPHA = picture((8, 9, 4))
NAN_ALPHA[1, 1, 3] = np.nan
Y = torch.rand(1, 1, 8, 9)


class Several(torch.nn.Conv2d):
    """A network that returns features beside the image."""

    def __init__(self):
        super().__init__(8, 3, 1)

    def forward(self, z):
        return super().forward(z), z


class Halving(torch.nn.Module):
    """A network for even sizes only."""

    def __init__(self):
        super().__init__()
        self.down = torch.nn.Conv2d(32, 8, 2, stride=2)
        self.up = torch.nn.ConvTranspose2d(8, 3, 2, stride=2)

    def forward(self, z):
        return torch.sigmoid(self.up(self.down(z)))


class OfShape(torch.autograd.Function):
    """x, with a gradient of another shape."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient.flatten()


class OfNumPy(OfShape):
    @staticmethod
    def backward(ctx, gradient):
        return gradient.numpy()


class Odd(Exception):
    """An error that is not made of a text alone."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def odd(x):
    raise Odd(1, 2)


@pytest.fixture(autouse=True)
def no_iteration(monkeypatch):
    def step(self):
        pytest.fail("an iteration was done")

    monkeypatch.setattr(dip.Fit, "_iterate", step)


def denoise(image=RGB, **options):
    return lambda: dip.denoise(image, **{**QUICK, **options})


def inpaint(image=RGB, mask=KNOWN, **options):
    return lambda: dip.inpaint(image, mask, **{**QUICK, **options})


def enlarge(image=RGB, factor=2, **options):
    return lambda: dip.super_resolve(image, factor, **{**QUICK, **options})


def reconstruct(y=Y, forward=lambda x: x, shape=(8, 9), **options):
    return lambda: dip.reconstruct(y, forward=forward, shape=shape, **{**QUICK, **options})


IMAGES = {
    "NaN": (denoise(NAN), ValueError, ["image has 1 NaN or infinite value", "mask of dip.denoise or dip.inpaint"]),
    "infinity": (denoise(INF), ValueError, ["3 NaN or infinite", "mask of dip.denoise or dip.inpaint"]),
    "NaN in a tensor": (denoise(torch.from_numpy(NAN).permute(2, 0, 1)), ValueError, ["1 NaN", "mask"]),
    "NaN in alpha": (denoise(NAN_ALPHA), ValueError, ["1 NaN"]),
    "NaN in a known pixel": (inpaint(NAN), ValueError, ["1 NaN", "mask"]),
    "NaN in a small image": (enlarge(INF), ValueError, ["3 NaN"]),
    "empty": (denoise(np.zeros((0, 9, 3), np.uint8)), ValueError, ["image is empty", "(0, 9, 3)"]),
    "no channels": (denoise(np.zeros((8, 9, 0), np.uint8), channel_axis=2), ValueError, ["empty"]),
    "larger than any memory": (denoise(np.broadcast_to(np.float32(0), (10**9, 10**9))), MemoryError,
        ["1000000000 x 1000000000 pixels", "GiB", "restore a crop"]),
    "one axis": (denoise(np.zeros(9, np.uint8)), ValueError, ["shape (9,)", "allowed: (H, W)"]),
    "five axes": (denoise(np.zeros((1, 1, 8, 9, 3), np.uint8)), ValueError, ["shape (1, 1, 8, 9, 3)", "allowed"]),
    "a number": (denoise(np.float32(3)), TypeError, ["image is a float32", "numpy array or a torch tensor"]),
    "a list": (denoise([[0.1, 0.2]]), TypeError, ["image is a list", "np.asarray(image)"]),
    "a path": (denoise("photo.png"), TypeError, ["image is a str", "dip.files.read('photo.png').pixels"]),
    "nothing": (denoise(None), TypeError, ["image is a NoneType"]),
    "two channels": (denoise(np.zeros((8, 9, 2), np.uint8)), ValueError, ["(8, 9, 2)", "channel_axis=-1"]),
    "a tensor with the colours last": (denoise(torch.from_numpy(RGB)), ValueError,
        ["(8, 9, 3), which looks like (H, W, C)", "channel_axis=-1"]),
    "wrong axis": (denoise(channel_axis=3), ValueError, ["channel_axis 3", "allowed: 0 to 2"]),
    "a masked array": (denoise(np.ma.masked_array(GRAY, GRAY > 0.5)), TypeError, ["masked array", "dip.inpaint"]),
    "complex": (denoise(RGB.astype(complex)), TypeError, ["dtype complex128", "magnitude"]),
    "object": (denoise(RGB.astype(object)), TypeError, ["dtype object", "allowed: uint8"]),
    "bool": (denoise(KNOWN), TypeError, ["dtype bool", "uint8"]),
    "int64 without range": (denoise(np.zeros((8, 9), np.int64)), TypeError, ["int64", "data_range"]),
    "0 to 255 as float": (denoise(RGB * 255), ValueError,
        ["far outside the clean range [0, 1]", "data_range=255", "divide by 255"]),
    "16 bit as float": (denoise(RGB * 65535), ValueError, ["[0, 1]", "data_range=65535"]),
    "0 to 4 as float": (denoise(RGB * 4), ValueError, ["far outside", "data_range=(low, high)"]),
    "far below": (denoise(RGB - 100), ValueError, ["far outside", "data_range=(low, high)"]),
    "a range that is none": (denoise(data_range=(1, 0)), ValueError, ["data_range must be", "(1, 0)"]),
    "a range of three": (denoise(data_range=(0, 1, 2)), ValueError, ["data_range must be"]),
    "a range beyond the type": (denoise(picture((8, 9), "uint8"), data_range=1000), ValueError, ["1000", "uint8"]),
    "a batch as a task": (lambda: dip.Denoise(torch.rand(2, 3, 8, 9)), ValueError, ["batch of 2", "one image a fit"]),
    "an array as a task": (lambda: dip.fit(RGB, iters=1), TypeError,
        ["task=ndarray of shape (8, 9, 3)", "dip.Denoise(image)"]),
    "a task class": (lambda: dip.fit(dip.Denoise, iters=1), TypeError, ["task=", "dip.Denoise(image)"]),
}  # fmt: skip

MASKS = {
    "another size": (
        inpaint(mask=np.ones((9, 8), bool)),
        ValueError,
        ["mask has shape (9, 8)", "(8, 9) is needed", "known"],
    ),
    "channels": (
        inpaint(mask=np.ones((8, 9, 3), bool)),
        ValueError,
        ["mask has shape (8, 9, 3)", "(8, 9) is needed", "mask.all(axis=-1)", "dip.reconstruct(..., weight=)"],
    ),
    "channels first": (
        inpaint(mask=np.ones((3, 8, 9), bool)),
        ValueError,
        ["mask has shape (3, 8, 9)", "needs (8, 9)", "mask.all(axis=0)"],
    ),
    "a masked array": (inpaint(mask=np.ma.masked_array(GRAY, GRAY > 0.5)), TypeError, ["True = known: ~mask.mask"]),
    "nothing known": (inpaint(mask=np.zeros((8, 9), bool)), ValueError, ["no pixel as known", "non-zero means known"]),
    "negative": (inpaint(mask=-KNOWN.astype(int)), ValueError, ["negative", "0 = missing"]),
    "negative floats": (inpaint(mask=-0.5 * KNOWN), ValueError, ["-0.5", "[0, 1]"]),
    "above 1": (inpaint(mask=255.0 * KNOWN), ValueError, ["255", "[0, 1]"]),
    "NaN": (inpaint(mask=np.nan * KNOWN), ValueError, ["nan", "no NaN"]),
    "complex": (inpaint(mask=1j * KNOWN), TypeError, ["complex", "allowed: bool"]),
    "a list": (inpaint(mask=[[True]]), (TypeError, ValueError), ["mask", "(8, 9)"]),
    "nothing": (inpaint(mask=None), (TypeError, ValueError), ["mask", "None", "(8, 9)"]),
}

ENLARGEMENTS = {
    "factor 0": (enlarge(factor=0), ValueError, ["factor must be", "not 0"]),
    "factor 2.5": (enlarge(factor=2.5), TypeError, ["factor must be", "2.5 (float); pass an int"]),
    "negative": (enlarge(factor=-2), ValueError, ["factor must be", "-2"]),
    "kernel": (enlarge(kernel="lanczos"), ValueError, ["unknown kernel 'lanczos'", "did you mean 'lanczos"]),
    "a factor beyond any memory": (
        enlarge(factor=10**8),
        MemoryError,
        ["800000000 x 900000000 pixels", "GiB", "a reduced picture"],
    ),
    "a factor beyond any number": (enlarge(factor=10**19), MemoryError, ["GiB"]),
    "phase": (enlarge(phase=1.5), ValueError, ["phase must be from 0 to 1", "1.5"]),
}

RECONSTRUCTIONS = {
    "shape of the prediction": (reconstruct(shape=(9, 8)), ValueError,
        ["(1, 1, 9, 8)", "y has shape (1, 1, 8, 9)", "change shape= or the operator"]),
    "a prediction that would broadcast": (reconstruct(forward=lambda x: x.mean(dim=(2, 3), keepdim=True)), ValueError,
        ["y has shape"]),
    "no gradient": (reconstruct(forward=lambda x: x.detach()), ValueError, ["without a gradient", "torch operations"]),
    "numpy inside": (reconstruct(forward=lambda x: torch.from_numpy(x.detach().numpy())), ValueError,
        ["without a gradient"]),
    "not a tensor": (reconstruct(forward=lambda x: x.detach().numpy()), TypeError,
        ["forward returned ndarray", "a tensor is needed"]),
    "the gradient of something else": (reconstruct(forward=lambda x: x.detach() * torch.nn.Parameter(torch.ones(()))),
        ValueError, ["forward returned a tensor without a gradient of x", ".detach()"]),
    "rounded": (reconstruct(forward=lambda x: torch.round(x * 4) / 4), ValueError,
        ["a gradient that is 0 everywhere", "rounds"]),
    "times 0": (reconstruct(forward=lambda x: x * 0), ValueError,
        ["a gradient that is 0 everywhere", "multiplies by 0"]),
    "a function of scikit-image": (reconstruct(forward=radon), ValueError,
        ["forward fails on an image of shape (1, 1, 8, 9)", "2-D", "cannot differentiate skimage", "has Radon"]),
    "an error of the user's": (reconstruct(forward=lambda x: {}["angles"]), KeyError,
        ["forward fails on an image of shape (1, 1, 8, 9)", "'angles'", "(1, C, H, W)"]),
    "an odd error of the user's": (reconstruct(forward=odd), RuntimeError,
        ["forward fails on an image", "Odd: 1 and 2"]),
    "an image of another size": (reconstruct(forward=dip.operators.Fourier(np.ones((4, 4)))), ValueError,
        ["forward fails on an image", "8 x 9 does not suit the mask"]),
    "a gradient of another shape": (reconstruct(forward=OfShape.apply), ValueError,
        ["the gradient of forward fails, for an image of shape (1, 1, 8, 9)", "[72]", "backward of your own"]),
    "a gradient of NumPy": (reconstruct(forward=OfNumPy.apply), ValueError,
        ["the gradient of forward fails", "numpy.ndarray", "has to return a torch tensor"]),
    "None": (reconstruct(forward=lambda x: None), TypeError, ["forward returned None"]),
    "NaN from the operator": (reconstruct(forward=lambda x: (x - 0.5) / 0 * 1), ValueError,
        ["NaN or infinity for a gray image"]),
    "complex against real": (reconstruct(forward=lambda x: torch.fft.fft2(x)), ValueError,
        ["complex64", "float32", "both"]),
    "real against complex": (reconstruct(Y * 1j), ValueError, ["complex64", "float32", "both"]),
    "no operator": (reconstruct(forward=None), TypeError, ["forward must be a callable", "method A"]),
    "a matrix of too few rows": (reconstruct(forward=np.eye(72)[:70]), ValueError,
        ["(70, 72) makes 70 values, but y has shape (1, 1, 8, 9), that is 72"]),
    "a matrix for another image": (reconstruct(forward=np.ones((72, 71))), ValueError,
        ["takes an image of 71 values", "(1, 1, 8, 9), that is 72", "change shape= or the matrix"]),
    "a matrix that is a tensor": (reconstruct(forward=torch.eye(72)), TypeError,
        ["forward must be", "forward=lambda x: M @ x.flatten()"]),
    "a LinearOperator without its transpose": (
        reconstruct(forward=LinearOperator((72, 72), matvec=lambda v: v)), TypeError,
        ["the gradient of forward fails", "has no rmatvec", "rmatvec=..."]),
    "a matrix of NumPy": (reconstruct(forward=lambda x: np.eye(72) @ x.flatten()), TypeError,
        ["forward fails on x, a torch tensor", "forward=A"]),
    "axes of length 1": (reconstruct(Y[None], forward=lambda x: x), ValueError,
        [f"but y has shape {(1, *Y.shape)}", f"give y.reshape({', '.join(map(str, (1, 1, 8, 9)))})"]),
    "a class": (reconstruct(forward=torch.nn.Identity), TypeError, ["forward is the class Identity itself"]),
    "NaN in y": (reconstruct(Y * np.nan), ValueError, ["y has NaN or infinite", "weight="]),
    "empty y": (reconstruct(Y[..., :0]), ValueError, ["y is empty"]),
    "a list as y": (reconstruct([1.0]), TypeError, ["y=[1.0]", "array or a tensor"]),
    "an empty list as y": (reconstruct([]), TypeError, ["y=[]", "array or a tensor"]),
    "a number as y": (reconstruct(1.0), TypeError, ["y=1.0", "array or a tensor"]),
    "arrays and tensors": (reconstruct([Y, Y.numpy()]), TypeError, ["a list of arrays, or of tensors"]),
    "one prediction for two": (reconstruct([Y, Y]), TypeError, ["forward returned Tensor", "a list of 2 is needed"]),
    "predictions of other shapes": (reconstruct([Y, Y], lambda x: [x, x[0]]), ValueError,
        ["shapes [(1, 1, 8, 9), (1, 8, 9)]", "y has [(1, 1, 8, 9), (1, 1, 8, 9)]"]),
    "weights for one of two": (reconstruct([Y, Y], lambda x: [x, x], weight=[Y]), ValueError,
        ["weight has 1 members; 2 are needed"]),
    "weights of another shape": (reconstruct([Y, Y], lambda x: [x, x], weight=[Y, torch.ones(3)]), ValueError,
        ["weight has members of shapes [(1, 1, 8, 9), (3,)]"]),
    "object y": (reconstruct(Y.numpy().astype(object)), TypeError, ["y has dtype object"]),
    "bool y": (reconstruct(Y > 0.5), TypeError, ["y has dtype torch.bool"]),
    "one size": (reconstruct(shape=(72,)), ValueError, ["shape=(72,)", "(C, H, W) or (H, W)"]),
    "a number as shape": (reconstruct(shape=72), TypeError, ["shape=72", "(C, H, W) or (H, W)"]),
    "sizes of 0": (reconstruct(shape=(0, 9)), ValueError, ["shape must be", "not 0"]),
    "fractional sizes": (reconstruct(shape=(8.0, 9)), TypeError, ["shape must be", "8.0"]),
    "weight of another shape": (reconstruct(weight=torch.ones(3)), ValueError, ["weight", "(1, 1, 8, 9)", "(3,)"]),
    "negative weight": (reconstruct(weight=-torch.ones(8, 9)), ValueError, ["weight", "negative"]),
    "weight of 0": (reconstruct(weight=torch.zeros(8, 9)), ValueError, ["weight is zero everywhere"]),
    "a number as weight": (reconstruct(weight=1.0), TypeError, ["weight=1.0", "array or a tensor"]),
    "a matrix of another precision": (
        reconstruct(Y.flatten(), lambda x: torch.eye(72).double() @ x.flatten()), ValueError,
        ["forward fails on an image of shape (1, 1, 8, 9), torch.float32, on cpu", "dtype"]),
    "in place": (reconstruct(forward=lambda x: x.mul_(2)), ValueError, ["in place", "x * 2"]),
    "range": (reconstruct(data_range=-1), ValueError, ["data_range must be"]),
}  # fmt: skip


class WrongShape:
    channels = 8

    def draw(self, frame, generator):
        return torch.zeros(1, 8, 4, 4)


class NotFinite:
    channels = 8

    def draw(self, frame, generator):
        return torch.full((1, 8, frame.height, frame.width), float("nan"))


class NoTensor:
    channels = 8

    def draw(self, frame, generator):
        return np.zeros((1, 8, frame.height, frame.width), np.float32)


OPTIONS = {
    "0 iterations": (denoise(iters=0), ValueError, ["iters must be a whole number from 1 up", "not 0"]),
    "negative iterations": (denoise(iters=-10), ValueError, ["iters must be", "not -10"]),
    "half an iteration": (denoise(iters=0.5), TypeError, ["iters must be", "0.5"]),
    "iterations as float": (denoise(iters=100.0), TypeError, ["iters must be", "pass 100"]),
    "iterations as text": (denoise(iters="100"), TypeError, ["iters must be", "'100'"]),
    "unknown option": (denoise(iterations=5), TypeError, ["unknown option 'iterations'", "did you mean 'iters'"]),
    "unknown option of Fit": (lambda: dip.Fit(dip.Denoise(RGB), presett="paper"), TypeError, ["did you mean 'preset'"]),
    "preset": (denoise(preset="papr"), ValueError, ["unknown preset for denoise: 'papr'", "did you mean 'paper'"]),
    "preset of another task": (denoise(preset="paper-hole"), ValueError,
        ["'paper-hole' is one for inpaint; for denoise: ", "paper-sigma50"]),
    "network": (denoise(network="vnet"), ValueError, ["unknown network 'vnet'", "encoder-decoder"]),
    "network's option": (denoise(network={"downs": [8]}), ValueError,
        ["unknown option of network", "did you mean 'down'"]),
    "network's lists": (denoise(network={**NET, "up": [8]}), ValueError, ["up has 1", "one entry a scale"]),
    "network of another kind": (denoise(network=3), TypeError, ["network=3", "a dict of options, a name"]),
    "network class": (denoise(network=torch.nn.Conv2d), TypeError, ["network=", "or a module"]),
    "network's output": (denoise(network=torch.nn.Conv2d(8, 5, 1)), ValueError,
        ["(1, 5, 8, 9)", "the task needs (1, 3, 8, 9)", "as many output channels"]),
    "network's size": (denoise(network=torch.nn.Conv2d(8, 3, 3)), ValueError, ["(1, 3, 6, 7)", "the size of its code"]),
    "network's input": (denoise(network=dip.networks.EncoderDecoder(5, 3, **NET)), ValueError,
        ["(N, 5, H, W) is needed"]),
    "network of other inputs": (denoise(network=torch.nn.Conv2d(5, 3, 1)), ValueError,
        ["the network fails on a code of shape (1, 8, 8, 9)", "as many input channels as the code"]),
    "network without weights": (denoise(network=torch.nn.Conv2d(8, 3, 1).requires_grad_(False)), ValueError,
        ["no weights that could be fitted", "requires_grad=False"]),
    "network's channels": (denoise(network={**NET, "in_channels": 3}), TypeError, ["'in_channels'", "from the code"]),
    "network's activation": (denoise(network={**NET, "activation": ["relu"]}), ValueError,
        ["unknown activation ['relu']", "leaky_relu"]),
    "network's sigmoid": (denoise(network={**NET, "sigmoid": "off"}), TypeError, ["sigmoid must be True or False"]),
    "network's bias": (denoise(network={**NET, "bias": 3}), TypeError, ["bias must be True or False, not 3"]),
    "network's skip": (denoise(network={**NET, "skip": [0.0, 1]}), TypeError, ["skip[0] must be", "pass 0"]),
    "network's 40 scales": (denoise(network={k: [2] * 40 for k in ("down", "up", "skip")}), MemoryError,
        ["8 x 9 pixels", "padded to 2199023255552 x 2199023255552", "fewer scales"]),
    "optimised code": (denoise(optimize_code="no"), TypeError, ["optimize_code must be True or False, not 'no'"]),
    "network that cannot do bfloat16": (denoise(network=torch.nn.Conv2d(8, 3, 1), precision="bfloat16"), ValueError,
        ["follows_dtype", 'precision="float32"']),
    "code": (denoise(code="unifrm"), ValueError, ["unknown code 'unifrm'", "did you mean 'uniform'"]),
    "code of another kind": (denoise(code=np.zeros((8, 9))), TypeError, ["dip.codes.Image(image)"]),
    "code of another shape": (denoise(code=WrongShape()), ValueError, ["(1, 8, 4, 4)", "(1, 8, 8, 12) is needed"]),
    "code that draws an array": (denoise(code=NoTensor()), TypeError,
        ["code=", "drew ndarray of shape (1, 8, 8, 12)", "a tensor of shape (1, 8, 8, 12) is needed"]),
    "code with NaN": (denoise(code=NotFinite()), ValueError, ["without NaN"]),
    "loss": (denoise(loss="mes"), ValueError, ["unknown loss 'mes'", "did you mean 'mse'"]),
    "loss of another kind": (denoise(loss=3), TypeError, ["loss must be one of", "callable"]),
    "loss class": (denoise(loss=dip.losses.L1), TypeError, ["class L1 itself", "L1()"]),
    "penalty": (denoise(penalty=0.1), TypeError, ["penalty=0.1", "dip.losses.TotalVariation"]),
    "penalty class": (denoise(penalty=[dip.losses.TotalVariation]), TypeError,
        ["penalty=", "dip.losses.TotalVariation"]),
    "penalty by name": (denoise(penalty="tv"), TypeError, ["penalty='tv'", "dip.losses.TotalVariation"]),
    "optimizer": (denoise(optimizer="adamw"), ValueError, ["unknown optimizer 'adamw'", "did you mean 'adam'"]),
    "optimizer class": (denoise(optimizer=torch.optim.Adam), ValueError, ["unknown optimizer", "adam, lbfgs"]),
    "lr 0": (denoise(lr=0), ValueError, ["lr must be a finite number above 0"]),
    "lr NaN": (denoise(lr=float("nan")), ValueError, ["lr must be", "nan"]),
    "lr as text": (denoise(lr="0.01"), TypeError, ["lr must be", "'0.01'"]),
    "jitter": (denoise(jitter=-0.1), ValueError, ["jitter must be", "-0.1"]),
    "flips": (denoise(flips=-1), ValueError, ["flips must be", "-1"]),
    "flips in words": (denoise(flips="often"), ValueError, ["flips='often'", '"auto"']),
    "flips of a hole": (inpaint(flips="auto"), ValueError, ["flips='auto'", "dip.Denoise", "inpaint"]),
    "flips of noise": (denoise(flips="auto"), ValueError, ["flips='auto'", "code of pictures", "Uniform"]),
    "flips of a half": (denoise(flips=0.5), TypeError, ["flips must be", "0.5"]),
    "average": (denoise(average=1), ValueError, ["average=1", "[0, 1)", "0 turns averaging off"]),
    "negative average": (denoise(average=-0.5), ValueError, ["average must be", "-0.5"]),
    "stop": (denoise(stop=100), TypeError, ["stop=100", "dip.stopping.WindowedVariance()", "iters="]),
    "stop class": (denoise(stop=dip.stopping.MovingVariance), TypeError, ["give a rule"]),
    "stop for another loss": (denoise(stop=dip.stopping.Discrepancy(0.1), loss="huber"), ValueError,
        ["Discrepancy", "Huber"]),
    "negative seed": (denoise(seed=-1), ValueError, ["seed must be a whole number from 0 up", "-1"]),
    "misspelt argument of the function": (denoise(data_rnge=1), TypeError,
        ["unknown option 'data_rnge'", "did you mean 'data_range'"]),
    "argument of the task": (lambda: dip.fit(dip.Denoise(RGB), data_range=1), TypeError,
        ["data_range belongs to the task", "Denoise(..., data_range=...)"]),
    "network in another precision": (lambda: dip.fit(dip.Denoise(RGB), network=Halving().double(), iters=1), TypeError,
        ["weights are in torch.float64", "network.float()"]),
    "network in bfloat16": (denoise(network=torch.nn.Conv2d(8, 3, 1).bfloat16()), TypeError,
        ["weights are in torch.bfloat16", "network.float()"]),
    "network with lazy layers": (denoise(network=torch.nn.LazyConv2d(3, 1)), ValueError,
        ["lazy layers", "call it once, with a code"]),
    "network that returns several": (denoise(network=Several()), TypeError,
        ["the network returns (tensor", "the image alone, one tensor (1, C, H, W)"]),
    "rule that measures nothing": (denoise(stop=dip.stopping.Rule(patience=3, earliest=1)), TypeError,
        ["a Rule has no measure(output, loss)", "dip.stopping"]),
    "network for even sizes": (lambda: dip.fit(dip.Denoise(RGB), network=Halving(), iters=1), ValueError,
        ["padded_size(height, width)"]),
    "seed as float": (denoise(seed=1.5), TypeError, ["seed must be", "1.5"]),
    "device": (denoise(device="cdua"), ValueError, ["unknown device 'cdua'", "did you mean 'cuda'"]),
    "device that is not there": (denoise(device="cuda:77"), ValueError,
        ["'cuda:77' is not on this machine", "here: ", "cpu"]),
    "second processor": (denoise(device="cpu:1"), ValueError, ["'cpu:1' is not on this machine"]),
    "precision": (denoise(precision="float16"), ValueError, ["unknown precision 'float16'", "bfloat16"]),
    "callbacks": (denoise(callbacks=5), TypeError, ["callbacks=5", "functions that take the fit"]),
    "one bad callback": (denoise(callbacks=[print, "x"]), TypeError, ["callbacks=", "functions that take the fit"]),
    "reference of another size": (denoise(reference=picture((9, 8, 3))), ValueError,
        ["reference has 3 channels of 9 x 8", "3 of 8 x 9", "same size"]),
    "reference of other channels": (denoise(reference=GRAY), ValueError, ["reference has 1 channels", "3 of 8 x 9"]),
    "small reference": (enlarge(reference=RGB), ValueError, ["3 channels of 8 x 9", "3 of 16 x 18"]),
    "reference with NaN": (denoise(reference=NAN), ValueError, ["reference has 1 NaN"]),
    "reference in another range": (denoise(reference=RGB * 255), ValueError,
        ["reference has values", "data_range=255"]),
    "reference of another kind": (denoise(reference="clean.png"), TypeError, ["reference is a str"]),
    "init": (denoise(init=torch.nn.Conv2d(8, 3, 1)), TypeError, ["init=", "an earlier fit"]),
    "checkpoint_every alone": (denoise(checkpoint_every=5), ValueError, ["checkpoint_every", "checkpoint=FILE"]),
    "resume from nowhere": (denoise(resume="/nowhere/fit.st"), FileNotFoundError, ["no checkpoint", "/nowhere/fit.st"]),
    "checkpoint that is no path": (denoise(checkpoint=3), TypeError, ["checkpoint=3", "the path of a file"]),
    "checkpoint of a Fit that is no path": (lambda: dip.Fit(dip.Denoise(RGB), checkpoint=3, **QUICK), TypeError,
        ["checkpoint=3", "the path of a file"]),
    "count of a Fit": (lambda: dip.Fit(dip.Denoise(RGB), iters=3), TypeError, ["run(iters)"]),
    "checkpoint nowhere": (denoise(checkpoint="/nowhere/fit.st"), FileNotFoundError,
        ["no folder /nowhere", "create it"]),
}  # fmt: skip

CASES = {
    f"{group}: {name}": case
    for group, cases in {
        "image": IMAGES, "mask": MASKS, "enlarge": ENLARGEMENTS, "reconstruct": RECONSTRUCTIONS, "option": OPTIONS,
    }.items()
    for name, case in cases.items()
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_refused_before_the_first_iteration(case):
    call, error, words = CASES[case]
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    for part in words:
        assert part in message
    assert "\n" not in message
    assert len(message) < 500


def test_too_large_for_the_memory(monkeypatch):
    monkeypatch.setattr(dip.devices, "free_memory", lambda device: 10**8)
    with pytest.raises(
        MemoryError, match=r"fitting 8 x 9 pixels \(height x width\) on cpu would take about .*; restore a crop"
    ):
        dip.denoise(RGB)


def test_numbers_and_names_are_checked_before_the_data_are_touched(monkeypatch):
    for task, option in [
        (dip.Denoise(NAN), {"lr": -1}),
        (dip.Denoise(NAN), {"preset": "nope"}),
        (dip.Denoise(NAN), {"device": "nope"}),
        (dip.Denoise(NAN), {"network": {"down": [1]}}),
        (dip.Inpaint(NAN, KNOWN), {"average": 2}),
    ]:
        monkeypatch.setattr(task, "load", lambda: pytest.fail("the data were touched"))
        with pytest.raises(ValueError, match=r"must|unknown|entries|average"):
            quick_fit(task, **option)


def test_the_input_of_a_refused_call_is_unchanged():
    image = NAN.copy()
    with pytest.raises(ValueError, match="NaN"):
        dip.denoise(image, **QUICK)
    np.testing.assert_array_equal(image, NAN)


LOSSES = {
    "loss without weights": (inpaint(mask=GRAY > 0.5, loss=lambda x, y: (x - y).abs().mean()), TypeError,
        ["the loss does not take weight=", "def loss(prediction, y, weight=None)"]),
    "loss of each pixel": (denoise(loss=lambda x, y: (x - y).abs()), ValueError,
        ["the loss returned torch.float32 of shape (1, 3, 8, 9)", "mean()"]),
    "loss that is no tensor": (denoise(loss=lambda x, y: 0.5), TypeError, ["the loss returned 0.5", "a tensor"]),
    "loss without a gradient": (denoise(loss=lambda x, y: (x - y).detach().mean()), ValueError, ["without a gradient"]),
    "penalty of each pixel": (denoise(penalty=torch.abs), ValueError, ["the penalty returned", "mean()"]),
}  # fmt: skip


@pytest.mark.parametrize("case", LOSSES)
def test_losses_of_ones_own_are_refused_before_anything_is_fitted(case, monkeypatch):
    monkeypatch.undo()  # they show what they are when they are called first, with an output of the network
    monkeypatch.setattr(torch.optim.Adam, "step", lambda *args: pytest.fail("a step was done"))
    call, error, words = LOSSES[case]
    with pytest.raises(error) as caught:
        call()
    for part in words:
        assert part in str(caught.value)


def test_one_prediction_for_several_measurements_is_told_in_its_own_words():
    with pytest.raises(TypeError, match=r"^forward returned Tensor .* a list of 2 is needed$"):
        reconstruct([Y, Y])()
