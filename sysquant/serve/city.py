"""CityHash128 of version 1.0.2, the checksum of ClickHouse's compressed frames; compiled.

Input: bytes. Output: two 64-bit halves, low first. Later versions of CityHash give other values.

References
----------
Pike and Alakuijala, CityHash 1.0.2, 2011.
"""

import numpy as np
from numpy.typing import NDArray

from sysquant.compiled import kernel

Bytes = NDArray[np.uint8]
Words = NDArray[np.uint64]
Pair = tuple[np.uint64, np.uint64]

K0 = np.uint64(0xC3A5C85C97CB3127)
K1 = np.uint64(0xB492B66FBE98F273)
K2 = np.uint64(0x9AE16A3B2F90404F)
K3 = np.uint64(0xC949D7C7509E6557)
FOLD = np.uint64(0x9DDFEA08EB382D69)


@kernel
def _word(data: Bytes, at: int, size: int) -> np.uint64:
    value = np.uint64(0)
    for place in range(size):
        value |= np.uint64(data[at + place]) << np.uint64(8 * place)
    return value


@kernel
def _turn(value: np.uint64, bits: int) -> np.uint64:
    if bits == 0:
        return value
    return (value >> np.uint64(bits)) | (value << np.uint64(64 - bits))


@kernel
def _mix(value: np.uint64) -> np.uint64:
    return value ^ (value >> np.uint64(47))


@kernel
def _fold(low: np.uint64, high: np.uint64) -> np.uint64:
    first = _mix((low ^ high) * FOLD)
    return _mix((high ^ first) * FOLD) * FOLD


@kernel
def _short(data: Bytes, at: int, size: int) -> np.uint64:
    if size > 8:
        tail = _word(data, at + size - 8, 8)
        turned = _turn(tail + np.uint64(size), size)
        return _fold(_word(data, at, 8), turned) ^ tail
    if size >= 4:
        head = np.uint64(size) + (_word(data, at, 4) << np.uint64(3))
        return _fold(head, _word(data, at + size - 4, 4))
    if size > 0:
        middle = np.uint64(data[at]) + (np.uint64(data[at + (size >> 1)]) << np.uint64(8))
        end = np.uint64(size) + (np.uint64(data[at + size - 1]) << np.uint64(2))
        return _mix(middle * K2 ^ end * K3) * K2
    return K2


# Hash of up to 127 bytes, from a seed.
@kernel
def _small(data: Bytes, at: int, size: int, low: np.uint64, high: np.uint64) -> Pair:
    a, b = low, high
    if size <= 16:
        a = _mix(a * K1) * K1
        c = b * K1 + _short(data, at, size)
        d = _mix(a + (_word(data, at, 8) if size >= 8 else c))
    else:
        c = _fold(_word(data, at + size - 8, 8) + K1, a)
        d = _fold(b + np.uint64(size), c + _word(data, at + size - 16, 8))
        a += d
        for step in range((size - 1) // 16):
            a = (a ^ (_mix(_word(data, at + 16 * step, 8) * K1) * K1)) * K1
            b ^= a
            c = (c ^ (_mix(_word(data, at + 16 * step + 8, 8) * K1) * K1)) * K1
            d ^= c
    a = _fold(a, c)
    b = _fold(d, b)
    return a ^ b, _fold(b, a)


# 32 bytes into a pair of words.
@kernel
def _weak(data: Bytes, at: int, a: np.uint64, b: np.uint64) -> Pair:
    last = _word(data, at + 24, 8)
    a += _word(data, at, 8)
    b = _turn(b + a + last, 21)
    first = a
    a += _word(data, at + 8, 8) + _word(data, at + 16, 8)
    return a + last, b + _turn(a, 44) + first


# One round over 64 bytes; the state is x, y, z and the pairs v and w.
@kernel
def _round(data: Bytes, at: int, state: Words) -> None:
    x, y, z, v0, v1, w0, w1 = state
    x = _turn(x + y + v0 + _word(data, at + 16, 8), 37) * K1
    y = _turn(y + v1 + _word(data, at + 48, 8), 42) * K1
    x ^= w1
    y ^= v0
    z = _turn(z ^ w0, 33)
    v0, v1 = _weak(data, at, v1 * K1, x + w0)
    w0, w1 = _weak(data, at + 32, z + w1, y)
    state[0], state[1], state[2] = z, y, x
    state[3], state[4], state[5], state[6] = v0, v1, w0, w1


@kernel
def _seeded(data: Bytes, at: int, size: int, low: np.uint64, high: np.uint64) -> Pair:
    if size < 128:
        return _small(data, at, size, low, high)
    z = np.uint64(size) * K1
    state = np.zeros(7, np.uint64)
    state[0], state[1], state[2] = low, high, z
    state[3] = _turn(high ^ K1, 49) * K1 + _word(data, at, 8)
    state[4] = _turn(state[3], 42) * K1 + _word(data, at + 8, 8)
    state[5] = _turn(high + z, 35) * K1 + low
    state[6] = _turn(low + _word(data, at + 88, 8), 53) * K1
    end, left = at, size
    while left >= 128:
        _round(data, end, state)
        _round(data, end + 64, state)
        end += 128
        left -= 128
    x, y, z, v0, v1, w0, w1 = state
    y += _turn(w0, 37) * K0 + z
    x += _turn(v0 + z, 49) * K0
    done = 0
    while done < left:
        done += 32
        y = _turn(y - x, 42) * K0 + v1
        w0 += _word(data, end + left - done + 16, 8)
        x = _turn(x, 49) * K0 + w0
        w0 += v0
        v0, v1 = _weak(data, end + left - done, v0, v1)
    x = _fold(x, v0)
    y = _fold(y, w0)
    return _fold(x + v1, w1) + y, _fold(x + w1, y + v1)


@kernel
def _city128(data: Bytes) -> Pair:
    size = len(data)
    if size >= 16:
        return _seeded(data, 16, size - 16, _word(data, 0, 8) ^ K3, _word(data, 8, 8))
    if size >= 8:
        low = _word(data, 0, 8) ^ (np.uint64(size) * K0)
        return _seeded(data, 0, 0, low, _word(data, size - 8, 8) ^ K1)
    return _seeded(data, 0, size, K0, K1)


def city128(data: bytes) -> tuple[int, int]:
    """CityHash128 1.0.2 of some bytes.

    Parameters
    ----------
    data : any length.

    Returns
    -------
    Low and high 64 bits.
    """
    low, high = _city128(np.frombuffer(data, np.uint8))
    return int(low), int(high)
