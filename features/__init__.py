"""From images or texts to a feature cache: data sets, backbones, extraction, the cache.

Public names are imported when they are first used, so that importing this package costs nothing.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
