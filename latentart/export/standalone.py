"""Draws a picture with the networks beside this file; it needs onnxruntime, numpy and Pillow only.

    python sample.py --style Cubism --seed 7 --steps 50 --guidance 1.5 --out picture.png

It walks as `latentart sample` with DDIM and its defaults, to the same picture. --style Cubism:0.6+Ukiyo_e:0.4 blends.
"""

import argparse
import hashlib
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image
from PIL.PngImagePlugin import PngInfo

HERE = Path(__file__).parent


def draw_noise(purpose: str, seed: int, shape: tuple[int, ...], *counters: int) -> np.ndarray[Any, Any]:
    """Return the normal noise [1, *shape] of a seed as PyTorch draws it: Box and Muller, 16 numbers a block."""
    key = hashlib.blake2b(repr((0, purpose, seed, *counters)).encode(), digest_size=8).digest()
    twister = np.random.RandomState((int.from_bytes(key, "big") >> 1) % 2**32)  # Mersenne Twister 19937

    def draw_blocks(count: int) -> np.ndarray[Any, Any]:
        uniform = twister.randint(0, 2**32, count, dtype=np.uint32) % 2**24 / 2**24
        first, second = uniform[: count // 16 * 16].reshape(-1, 2, 8).transpose(1, 0, 2)
        radius, angle = np.sqrt(-2 * np.log(1 - first)), 2 * np.pi * second
        return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()

    noise = draw_blocks(count := math.prod(shape))
    if count % 16:  # the last 16 are drawn anew
        noise = np.concatenate([noise[: count - 16], draw_blocks(16)])
    return noise.astype(np.float32).reshape(1, *shape)


def weigh_rows(columns: list[dict[str, Any]], style: str, labels: dict[str, str]) -> np.ndarray[Any, Any]:
    """Return the weight [1, rows] of each label of each column, of which the last says nothing."""
    rows: list[float] = []
    for column in columns:
        known, chosen = column["values"], dict[str, float]()
        text = labels.pop(column["name"], "") if rows else style
        for part in [] if not text else [text] if text in known else text.split("+"):
            name, _, weight = part.rpartition(":") if ":" in part and part not in known else (part, "", "1")
            chosen[name] = chosen.get(name, 0) + float(weight)
        if unknown := chosen.keys() - set(known):
            sys.exit(f"no {column['name']} is named {min(unknown)}; there are {', '.join(known)}")
        rows += [chosen.get(value, 0) / (sum(chosen.values()) or 1) for value in known] + [0 if chosen else 1]
    if labels:
        sys.exit(f"no column is named {min(labels)}")
    return np.array([rows], np.float32)


def main(words: list[str] | None = None) -> None:
    """Draw what is asked for."""
    about = json.loads((HERE / "onnx.json").read_text())
    usual, latents = about["sampling"], about["latents"]
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--style", required=True)
    parser.add_argument("--label", action="append", default=[], metavar="COLUMN=VALUE")
    for name in ("seed", "steps", "guidance", "eta"):
        parser.add_argument(f"--{name}", type=type(usual[name]), default=usual[name])
    parser.add_argument("--out", type=Path, default=Path("picture.png"))
    asked = parser.parse_args(words)
    if asked.out.exists():
        sys.exit(f"{asked.out} exists; nothing is overwritten")
    styled = weigh_rows(about["columns"], asked.style, dict(label.split("=", 1) for label in asked.label))
    rows = np.concatenate([styled, weigh_rows(about["columns"], "", {})])[: 1 if asked.guidance == 1 else 2]
    denoiser, decoder = (onnxruntime.InferenceSession(HERE / f"{name}.onnx") for name in ("denoiser", "decoder"))
    alpha_bar = [*about["alpha_bar"], 1.0]  # at -1 is the clean end
    count = min(asked.steps, usual["timesteps"])
    x = draw_noise("x_T", asked.seed, latents["shape"])
    for i in range(count):
        t, t_prev = (usual["timesteps"] * k // count - 1 for k in (count - i, count - i - 1))
        found = denoiser.run(None, {"x_t": x.repeat(len(rows), 0), "t": np.full(len(rows), t), "labels": rows})[0]
        guess = found[-1:] + np.float32(asked.guidance) * (found[:1] - found[-1:]) if len(rows) > 1 else found
        of_x, of_guess = (np.float32(about[name][t]) for name in ("x0_of_x_t", "x0_of_prediction"))
        x0 = (of_x * x + of_guess * guess).clip(-usual["x0_limit"], usual["x0_limit"])
        at, prev = alpha_bar[t], alpha_bar[t_prev]
        eps = (x - np.float32(at**0.5) * x0) / np.float32((1 - at) ** 0.5)
        kept = at * (1 - prev) / (prev * (1 - at))
        x = np.float32(prev**0.5) * x0 + np.float32(((1 - prev) * (1 + asked.eta**2 * (kept - 1))) ** 0.5) * eps
        if asked.eta and t_prev >= 0:
            sigma = asked.eta * ((1 - prev) / (1 - at) * (prev - at) / prev) ** 0.5
            x += np.float32(sigma) * draw_noise("step noise", asked.seed, latents["shape"], i)
    mean, std = (np.array(latents[name], np.float32).reshape(1, -1, 1, 1) for name in ("mean", "std"))
    image = decoder.run(None, {"latents": x * std + mean})[0][0].transpose(1, 2, 0)
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", about["xmp"])
    pixels = ((image + 1) * np.float32(127.5)).round().clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(asked.out, pnginfo=info, xmp=about["xmp"].encode())


if __name__ == "__main__":
    main()
