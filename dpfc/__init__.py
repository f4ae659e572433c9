"""dpfc: private classifiers from frozen features.

`DPFCClassifier` is the one to start with. Every classifier takes a budget
(`epsilon`, `delta`), follows scikit-learn's conventions, and leaves a privacy
statement in `privacy_`.
"""

import lazy_loader

# Imported when first used: `dpfc --help` and `dpfc.accounting` should not wait for torch. The
# stub beside this file says what there is, to type checkers too (SPEC 1 of Scientific Python).
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
