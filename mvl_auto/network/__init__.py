"""The network: MedVisionLlama and its ablations, all built from one NetworkSettings."""

from mvl_auto.network.model import MedVisionLlama, build_network

__all__ = ["MedVisionLlama", "build_network"]
