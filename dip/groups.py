"""Wiener filters of groups of patches that are alike, in turns, for pictures with missing pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from dip.devices import reused_memory
from dip.wiener import LEAST, PATCH, cosines, opponent, sums_of_patches

_FURTHER = 1.9  # times the way that the filter says; from 2 on the turns may diverge
_STRIDE = 7  # how offsets follow each other: of 8 x 8 (0, 0), (0, 7), (1, 6), ...

_GROUP, _REACH = 16, 12  # patches, and pixels to each side
_NEAR = 4  # pixels to each side of a patch in which holes count, by trials
_CELL = 120, 240  # rows and columns that are passed over where nothing is missing, multiples of PATCH
_AT_ONCE = 128  # groups
_FAR = 1e3  # what of a patch beyond the border is told, so that it is like none
_SOME = 1e-4  # share that counts as known of a patch of which nothing is
_RIM = PATCH - 1  # pixels beyond the border that have patches

Place = tuple[slice, slice]  # rows and columns


@torch.no_grad()
def in_turns(x: Tensor, picture: Tensor, weight: Tensor, sigmas: Sequence[float]) -> Tensor:
    r"""Return a picture x after a turn of `Groups` for each of these levels.

    After each the known pixels of the picture y are put back, and the others go further than the filter says
    (over-relaxation), but for the last one:

    .. math:: p_{k+1} = W_{σ_k}(x_k; p_k), \quad x_{k+1} = m \odot y + (1 - m) \odot (x_k + 1.9 (p_{k+1} - x_k)) .

    Parameters
    ----------
    x : Tensor
        (1, C, H, W), float32, on the CPU: what the turns begin with, and their first pilot.
    picture, weight : Tensor
        (1, C, H, W) and (1, 1, H, W) in [0, 1]: y, and m, how much is known of each pixel.
    sigmas : sequence of float
        Standard deviations of the noise that what is missing is taken for.
    """
    x, pilot = x.clone(), x.clone()
    with reused_memory(x.device):  # half of the time of a large picture
        groups = Groups(weight, x.shape[1])
        for turn, sigma in enumerate(sigmas):
            groups.filter(x, pilot, sigma, divmod(_STRIDE * turn % PATCH**2, PATCH), out=pilot)
            # what is known may be another in what the turns begin with
            for place in groups.places if turn else [(slice(None), slice(None))]:
                at = ..., *place
                x[at] = torch.lerp(torch.lerp(x[at], pilot[at], _FURTHER), picture[at], weight[at])
    return torch.lerp(pilot, picture, weight)


class Groups:
    r"""Empirical Wiener filters of patches with those that are like them, in a picture with missing pixels.

    As `dip.wiener.wiener`, but a patch is filtered together with the 15 that are most like it in the pilot, among those
    that begin at most 12 pixels from it in each direction: the transform is also one along these, of Hadamard, and it
    is the group's mean that stays. What repeats becomes large there, so it is kept where lone patches have it taken for
    noise. How alike two are is told by their ten lowest coefficients, in colour those of luminance.

    Every eighth patch of a row and of a column has a group, where something is missing in it or within 4 pixels; a
    pixel is the mean of all patches that it is in, each weighted by its group's :math:`1 / \sum w^2` and as far as it
    is known. What no patch comes to stays as it is, and is not even looked at further away.

    Parameters
    ----------
    weight : Tensor
        (1, 1, H, W) in [0, 1], on the CPU, where sums come in one order, each time: how much is known of each pixel.
    channels : int
        Of the pictures.

    References
    ----------
    Dabov, Foi, Katkovnik, Egiazarian, "Image denoising by sparse 3-D transform-domain collaborative filtering", IEEE
    Transactions on Image Processing 2007: the second step.
    """

    def __init__(self, weight: Tensor, channels: int) -> None:
        # Rows and columns are counted from the first patch on, _RIM before the picture's.
        whole = F.pad(weight, (_RIM,) * 4, mode="replicate")
        self._size: tuple[int, int] = (whole.shape[2], whole.shape[3])
        self._missing = F.pad(1 - whole, (_NEAR,) * 4)
        self._cells = _cells(self._missing)
        share = (sums_of_patches(whole) / PATCH**2).clamp(min=_SOME)
        self._share = F.pad(share, (0, _RIM, 0, _RIM)).flatten()  # of the patch that begins at each pixel
        # of what patches say of each pixel, and of the weights of those that begin there
        self._sums = torch.zeros(2, channels, *self._size)
        self._colours = opponent(channels)
        self._transform = cosines().to(self._sums)
        self._along = _hadamard(_GROUP)

    @property
    def places(self) -> list[Place]:
        """The parts of the picture that what is missing is in; no two have a pixel in common."""
        return [_in_picture(cell, self._size)[0] for cell in self._cells]

    def filter(self, picture: Tensor, pilot: Tensor, sigma: float, offset: tuple[int, int], *, out: Tensor) -> None:
        """Write a noisy picture after the filter into `out`, where anything changes.

        Parameters
        ----------
        picture, pilot : Tensor
            (1, C, H, W), float32, on the CPU.
        sigma : float
            Standard deviation of the noise, at least 1e-6.
        offset : tuple of int
            Row and column, below 8, at which patches begin: another one each time where the filter is used in turns.
        out : Tensor
            As the picture. It may be the pilot.
        """
        around = [self._around(cell) for cell in self._cells]
        for cell, place in zip(self._cells, around, strict=True):
            pair = torch.cat([self._part(one, place) for one in (picture, pilot)])
            pair = torch.einsum("ij,bjhw->bihw", self._colours, pair).contiguous()
            self._add(pair, place, cell, sigma, offset)
        for place in around:
            self._write(picture, place, out)
        for place in around:
            self._sums[..., *place] = 0

    def _around(self, cell: Place) -> Place:
        """Return where all patches are that those that begin in a cell may be grouped with."""
        rows, columns = (
            slice(max(own.start - _REACH, 0), min(own.stop + _REACH + _RIM, extent))
            for own, extent in zip(cell, self._size, strict=True)
        )
        return rows, columns

    def _part(self, picture: Tensor, place: Place) -> Tensor:
        """Return a part of a picture; beyond the border the pixels there go on."""
        inside, own = _in_picture(place, self._size)
        (top, bottom), (left, right) = (
            (one.start, whole.stop - whole.start - one.stop) for one, whole in zip(own, place, strict=True)
        )
        return F.pad(picture[..., *inside], (left, right, top, bottom), mode="replicate")

    def _add(self, pair: Tensor, place: Place, cell: Place, sigma: float, offset: tuple[int, int]) -> None:
        """Add up the groups of the patches that begin in a cell; `pair` is what is around it."""
        # the rows and columns at which patches with groups begin
        heads = [
            range(own.start + begin, min(own.stop, extent - _RIM), PATCH)
            for own, begin, extent in zip(cell, offset, self._size, strict=True)
        ]
        if not all(heads):
            return
        wanted = _near_holes(self._missing, *heads).nonzero()
        if not len(wanted):
            return
        transform, along = self._transform, self._along
        table = _told(pair[1, : 1 if pair.shape[1] == 3 else None, None], transform, place, cell)
        width, wide = self._size[1], pair.shape[3]  # of all, and of the pair
        rows, columns = torch.arange(PATCH)[:, None], torch.arange(PATCH)
        pixels = pair.flatten(2)
        # of PATCH pixels in a row
        runs = pixels.as_strided((*pixels.shape[:2], pixels.shape[2] - _RIM, PATCH), (*pixels.stride(), 1))
        sums, corner = self._sums.flatten(2), torch.tensor([own.start for own in cell])
        for first in (torch.tensor([head[0] for head in heads]) + PATCH * wanted).split(_AT_ONCE):
            away = _alike(table, first - corner)  # of (patches of a group, groups)
            down, right = (far + own for far, own in zip(away, first.T, strict=True))
            begins = down * width + right
            starts = (down - place[0].start) * wide + right - place[1].start
            starts = (starts[..., None, None] + rows * wide).flatten()
            at, known = (begins[..., None, None] + (rows * width + columns)).flatten(), self._share[begins]
            for channel, (total, weights) in enumerate(sums.unbind(1)):
                patches = (one.index_select(0, starts).reshape(-1, PATCH**2) for one in runs[:, channel])
                noisy, power = (
                    (along @ (one @ transform.T).reshape(_GROUP, -1)).unflatten(1, (-1, PATCH**2)) for one in patches
                )
                power = power.square()
                kept = power / (power + max(sigma, LEAST) ** 2)
                kept[0, :, 0] = 1
                counts = known / kept.square().sum((0, 2))
                filtered = (along @ kept.mul_(noisy).flatten(1)).reshape(-1, PATCH**2) @ transform
                total.index_add_(0, at, filtered.mul_(counts.reshape(-1, 1)).flatten())
                weights.index_add_(0, begins.flatten(), counts.flatten())

    def _write(self, picture: Tensor, place: Place, out: Tensor) -> None:
        """Write the means of what has been added up there."""
        before = [min(own.start, _RIM) for own in place]  # a pixel is in patches that begin up to 7 before it
        rows, columns = (slice(own.start - lead, own.stop) for own, lead in zip(place, before, strict=True))
        weights = F.pad(self._sums[1, :, rows, columns], (_RIM - before[1], 0, _RIM - before[0], 0))
        weights = sums_of_patches(weights)
        filtered = torch.einsum("ji,jhw->ihw", self._colours, self._sums[0, :, *place] / weights)
        inside, own = _in_picture(place, self._size)
        out[..., *inside] = torch.where(weights[:1, *own] > 0, filtered[..., *own], picture[..., *inside])


def _cells(missing: Tensor) -> list[Place]:
    """Return the parts, of whole cells next to each other in a row, in which patches begin that may have a group.

    What is missing has _NEAR more to each side.
    """
    height, width = (extent - 2 * _NEAR for extent in missing.shape[2:])
    across, along = (math.ceil(extent / side) for extent, side in zip((height, width), _CELL, strict=True))
    more = PATCH + 2 * _NEAR - 1  # which patches of a cell see beyond it
    beyond = along * _CELL[1] + more - missing.shape[3], across * _CELL[0] + more - missing.shape[2]
    most = F.pad(missing, (0, beyond[0], 0, beyond[1]))
    most = F.max_pool2d(most, (_CELL[0] + more, 1), stride=(_CELL[0], 1))
    most = F.max_pool2d(most, (1, _CELL[1] + more), stride=(1, _CELL[1]))
    found = []
    for row, some in enumerate((most[0, 0] > 0).tolist()):
        rows = slice(row * _CELL[0], min((row + 1) * _CELL[0], height))
        # where a run of such cells begins, and where it has ended
        edges = [i for i, (before, now) in enumerate(pairwise([False, *some, False])) if before != now]
        found += [
            (rows, slice(begin * _CELL[1], min(end * _CELL[1], width)))
            for begin, end in zip(edges[::2], edges[1::2], strict=True)
        ]
    return found


def _near_holes(missing: Tensor, rows: range, columns: range) -> Tensor:
    """Return which patches that begin in these rows and columns have holes in them or nearby."""
    side = PATCH + 2 * _NEAR
    about = missing[..., rows[0] : rows[-1] + side, columns[0] : columns[-1] + side]
    most = F.max_pool2d(F.max_pool2d(about, (side, 1), stride=(PATCH, 1)), (1, side), stride=(1, PATCH))
    return most[0, 0] > 0


def _told(seen: Tensor, transform: Tensor, place: Place, cell: Place) -> Tensor:
    """Return what is told of all patches around a cell, up to _REACH before and behind it, (rows, columns, n)."""
    k = torch.arange(PATCH)
    low = (k + k[:, None] < 4).flatten()  # in both directions together
    table = F.conv2d(seen, transform[low].reshape(-1, 1, PATCH, PATCH)).flatten(0, 1)
    (top, bottom), (left, right) = (
        (whole.start - own.start + _REACH, own.stop + _REACH - whole.stop + _RIM)
        for whole, own in zip(place, cell, strict=True)
    )
    return F.pad(table, (left, right, top, bottom), value=_FAR).permute(1, 2, 0).contiguous()


def _alike(table: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far down and right of each patch those like it begin, itself first, (_GROUP, groups).

    What is told of all is in `table`, in which each has _REACH others around; where the patches begin is counted from
    the first that is not one of these, (groups, 2).
    """
    across, told = table.shape[1:]
    side = 2 * _REACH + 1
    count = (len(table) - side) * across + across - side + 1
    windows = table.as_strided((count, side, side * told), (told, across * told, 1))
    about = windows.index_select(0, first[:, 0] * across + first[:, 1]).reshape(len(first), -1, told)
    own = about[:, None, side * side // 2]
    unlike = torch.cdist(own, about, compute_mode="donot_use_mm_for_euclid_dist")[:, 0]
    unlike[:, side * side // 2] = -1
    nearest = unlike.topk(_GROUP, largest=False).indices.T
    return nearest // side - _REACH, nearest % side - _REACH


def _hadamard(size: int) -> Tensor:
    """Return the orthonormal, symmetric matrix of a size that is a power of 2."""
    matrix = torch.ones(1, 1)
    while len(matrix) < size:
        matrix = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), matrix) / math.sqrt(2)
    return matrix


def _in_picture(place: Place, size: tuple[int, int]) -> tuple[Place, Place]:
    """Return the part of the picture that is in a place, as it is counted in the picture and in the place."""
    first = [max(one.start, _RIM) for one in place]
    last = [min(one.stop, extent - _RIM) for one, extent in zip(place, size, strict=True)]
    (top, left), (bottom, right) = first, last
    inside = slice(top - _RIM, bottom - _RIM), slice(left - _RIM, right - _RIM)
    rows, columns = place
    return inside, (slice(top - rows.start, bottom - rows.start), slice(left - columns.start, right - columns.start))
