"""FMoW and iWildCam of WILDS as prepared sets (data.library=fmow or iwildcam, Figure G.1)."""
