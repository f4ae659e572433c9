# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Tutorial: one budget from plan to refusal
#
# This notebook trains private classifiers, reads what they state, and spends a budget until the
# ledger refuses. It needs no network and takes less than a minute. Noise is drawn anew in every
# run, so that your accuracies differ a little from those printed here; what concerns the budget
# comes out the same.
#
# ## The data
#
# scikit-learn's digits, 1,797 images of 8 by 8 pixels, stand in for private rows. They are public,
# so that we may look at exact accuracies below to learn how the method behaves. With private rows
# each such look would be a release.
#
# Every fourth row is for testing. For private rows, [concepts](concepts.md) say what a split must
# not depend on.

# %%
from statistics import NormalDist

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import dpfc
from dpfc.accounting import gaussian_mu

X, y = load_digits(return_X_y=True)
for_test = np.arange(len(X)) % 4 == 0
X_train, y_train = X[~for_test], y[~for_test]
X_test, y_test = X[for_test], y[for_test]
print(f"{len(X_train)} rows to train on, {len(X_test)} to test on")

# %% [markdown]
# ## Plan a budget
#
# What does an ε mean for one person? Say that somebody knows all other rows and wants to find out
# whether this person took part, and that a fair coin decided it. Guessing blindly is right half of
# the time. The best possible attack is right this often, at δ = 1e-5:

# %%
for epsilon in (0.1, 1, 2, 8):
    right = NormalDist().cdf(gaussian_mu(epsilon, 1e-5) / 2)
    print(f"ε = {epsilon:<3}  {right:.1%}")

# %% [markdown]
# [Concepts](concepts.md) say more on this. We take ε = 1 for one model. The classifier says what
# it will release, and with how much noise, before it has seen a row:

# %%
model = dpfc.DPFCClassifier(epsilon=1.0, delta=1e-5, classes=range(10))
for release in model.privacy_plan().releases:
    print(f"{release.name:<12} {release.count:>2} times  noise {release.noise_multiplier:.1f}")

# %% [markdown]
# A noise of 20 is a standard deviation of 20 times what one row can change at most. `classes` is
# stated, because a list that is read from private labels would tell which of them occur.
#
# ## Fit
#
# `random_state` is left out: noise from a known seed protects nobody.

# %%
model.fit(X_train, y_train)
accuracy = model.score(X_test, y_test)
print(f"accuracy {accuracy:.1%}")

# %% [markdown]
# ## Read the statement
#
# The first line is the guarantee, or says NOT PRIVATE. A line that says NOT COVERED would name a
# gap. Then follow what an attacker can do at best, the releases, and what the guarantee rests on.
# Read these last sentences with care. They are yours to answer for.

# %%
statement = model.privacy_
print(statement)

# %% [markdown]
# The same figures are there for programs:

# %%
print(statement.private, statement.target_epsilon, statement.target_delta)
print(f"μ = {statement.mu:.4f}")

# %% [markdown]
# ## Keep a ledger
#
# One fit is accounted by itself. A data owner signs one budget for all that is ever released. Here
# it is ε = 2, and the test rows, who are other people, get ε = 1 of their own.

# %%
ledger = dpfc.PrivacyLedger("ledger.db")
for name, epsilon in {"digits": 2.0, "digits-test": 1.0}.items():
    ledger.create_budget(name, epsilon=epsilon, delta=1e-5, unit_of_privacy="one image")

paid = {"classes": range(10), "ledger": "ledger.db", "dataset": "digits"}
first = dpfc.DPFCClassifier(epsilon=1.0, **paid).fit(X_train, y_train)
second = dpfc.DPLeastSquaresClassifier(epsilon=1.0, **paid).fit(X_train, y_train)

for spend in ledger.history("digits"):
    print(f"{spend.purpose:<28} {spend.share_of_budget:.1%} of the budget")
left = ledger.remaining("digits")
print(f"one more fit may have ε = {left.epsilon_text}")

# %% [markdown]
# Two fits with ε = 1 have not used up ε = 2: what adds up is μ², not ε. But a third fit with
# ε = 1.5 is too much. It is refused before any noise is drawn, and nothing is recorded:

# %%
third = dpfc.DPFCClassifier(epsilon=1.5, **paid)
try:
    third.fit(X_train, y_train)
except dpfc.BudgetExceeded as refusal:
    print(f"BudgetExceeded: {refusal}")
print(f"{len(ledger.history('digits'))} spends on record")
print(f"third model fitted: {hasattr(third, 'coef_')}")

# %% [markdown]
# With what is left, a third model is possible, and then the budget is all but exhausted:

# %%
third.set_params(epsilon=float(left.epsilon_text)).fit(X_train, y_train)
print(f"spent: {ledger.remaining('digits').spent_share:.2%}")

# %% [markdown]
# ## Evaluate privately
#
# Suppose that the test rows are private, too. Then accuracy needs noise, and their own budget
# pays. The interval covers the noise and the chance of who was in the test:

# %%
paid = {"ledger": "ledger.db", "dataset": "digits-test"}
evaluation = dpfc.evaluate_privately(
    first, X_test, y_test, epsilon=1.0, metrics=("accuracy",), **paid
)
low, high = evaluation.accuracy_interval
print(f"accuracy {evaluation.accuracy:.1%}, between {low:.1%} and {high:.1%}")
print(f"without noise, which you would not see: {first.score(X_test, y_test):.1%}")
print(f"left for another look: ε = {ledger.remaining('digits-test').epsilon_text}")

# %% [markdown]
# ## Accuracy against ε
#
# How much does privacy cost? Three fits for each ε show it, and how far noise moves a single one.
# This may be drawn because the digits are public. On private rows all 18 fits would be spends.

# %%
budgets = [0.25, 0.5, 1, 2, 4, 8]
curve = []
for epsilon in budgets:
    model = dpfc.DPFCClassifier(epsilon=epsilon, classes=range(10))
    curve.append([model.fit(X_train, y_train).score(X_test, y_test) for _ in range(3)])

without = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
ceiling = without.fit(X_train, y_train).score(X_test, y_test)

figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
axes.plot(budgets, 100 * np.array(curve), "o", color="tab:blue", alpha=0.5)
axes.plot(budgets, 100 * np.mean(curve, axis=1), color="tab:blue", label="DP-FC, mean of three")
axes.axhline(100 * ceiling, color="gray", linestyle="--", label="logistic regression")
axes.set(xscale="log", xlabel="ε, at δ = 1e-5", ylabel="test accuracy in %")
axes.set_xticks(budgets, labels=budgets)
axes.set_xticks([], minor=True)
axes.legend()
plt.show()

# %%
for epsilon, accuracies in zip(budgets, curve, strict=True):
    print(f"ε = {epsilon:<4}  {np.mean(accuracies):.1%}")
print(f"not private: {ceiling:.1%}")

# %% [markdown]
# ## Save and load
#
# A model file holds weights and statement. It is made from noisy sums alone, so that it may be
# handed on, and predicting with it costs nothing more.

# %%
first.save("digits.safetensors")
loaded = dpfc.load_model("digits.safetensors")
print((loaded.predict(X_test) == first.predict(X_test)).all(), loaded.privacy_ == first.privacy_)

# %% [markdown]
# ## Where to go on
#
# - [A hospital's year](tutorial-hospital.md): the same with the command line.
# - [Tuning](tuning.md): searching under one budget.
# - [Data sets](datasets.md) and [backbones](backbones.md): your own images and texts.
