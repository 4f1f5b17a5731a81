"""The words of the choices: each is spelled here once, and core, config and the command line take it from here."""

from __future__ import annotations

from typing import Literal

# pictures
NearDuplicates = Literal["drop", "flag", "keep"]
FileFormat = Literal["jpeg", "png"]

# networks
ModelPart = Literal["autoencoder", "denoiser"]
AttentionKind = Literal["none", "linear", "full"]
Downsampling = Literal["average", "max", "strided"]
Upsampling = Literal["nearest", "bilinear", "bicubic", "transposed"]
Backbone = Literal["vgg16", "alexnet", "squeezenet"]  # of LPIPS, with weights that others trained
PerceptualKind = Literal[Backbone, "random"]
Precision = Literal["auto", "fp32", "bf16"]

# the autoencoder's losses
Reconstruction = Literal["l1", "l2", "charbonnier"]
Adversarial = Literal["hinge", "non_saturating"]

# diffusion
ScheduleKind = Literal["cosine", "linear", "quadratic", "sigmoid"]  # curves of β
Target = Literal["eps", "x0", "v", "flow"]
Weighting = Literal["uniform", "min_snr", "soft_min_snr", "learned"]
Timesteps = Literal["uniform", "logit_normal"]

# sampling
Engine = Literal["torch", "onnx"]
Sampler = Literal["ddim", "ddpm", "euler", "heun", "dpmpp_2m", "unipc"]
Spacing = Literal["trailing", "leading", "linspace", "log_snr"]
