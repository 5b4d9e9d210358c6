"""Networks f_θ: from a code z to a picture."""

from dip.networks.deep_decoder import DeepDecoder
from dip.networks.encoder_decoder import EncoderDecoder
from dip.networks.registry import create, names, register
from dip.networks.resnet import ResNet
from dip.networks.unet import UNet

__all__ = ["DeepDecoder", "EncoderDecoder", "ResNet", "UNet", "create", "names", "register"]
