"""Networks f_θ: from a code z to a picture."""

from dip.networks.encoder_decoder import EncoderDecoder
from dip.networks.registry import create, names, register

__all__ = ["EncoderDecoder", "create", "names", "register"]
