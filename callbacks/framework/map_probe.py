"""MapProbe: base class of probes whose film shows maps, with the scale of it."""

from fulgurite.callbacks.framework.film_maps import FilmScale, check_scale
from fulgurite.callbacks.framework.probe_callback import ProbeCallback


class MapProbe(ProbeCallback):
    """A probe whose film keeps the values of maps (`film_maps` in `frames`), and draws them at the end.

    Args:
        film_scale: of the maps of a method or layer in the film: one for the "film", or for each "epoch",
            which shows weak epochs as well.
        **schedule: as for `ProbeCallback`.
    """

    def __init__(self, *, film_scale: FilmScale = "film", **schedule):
        super().__init__(**schedule)
        self.film.scale = check_scale(film_scale)
