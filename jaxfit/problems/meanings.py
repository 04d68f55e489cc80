"""The equivalents of names of other libraries: SciPy, lmfit, Keras, PyTorch, Optax, scikit-learn.

An entry is an expression of Python, or words with expressions between backticks, or the name of an argument; a test
holds that all it names exists. Capitals and underscores do not count.
"""

from __future__ import annotations

_FIT = "jf.fit(loss, params, data, optimizer=jf.optimizers.adam(0.01))"
_LEAST_SQUARES = (
    "`jf.curve_fit(predict, start, (x, y))`, or for residuals of any kind `jf.fit(jf.losses.least_squares(residuals), "
    "params, data, optimizer=jf.optimizers.levenberg_marquardt())`"
)
_LBFGS = "jf.fit(loss, params, data, optimizer=jf.optimizers.lbfgs())"
_STARTS = "jf.best(jf.sweep(loss, jf.starts(params, 100, key=0), data, optimizer=jf.optimizers.lbfgs()))"
_DENSE = "jf.models.dense((1, 16, 1))"
_BOUNDED = "a number, `jf.Bounded(value, low, high)` or `jf.Fixed(value)` at a leaf of the params"
_GRADIENT = "jf.backprop(loss, params, data).gradients"
_KEY = "jf.fit(loss, params, data, optimizer=optimizer, key=0)"
_STOP = "jf.Stop(gradient_norm_below=1e-6)"
_PATIENCE = "`stop=jf.Stop(patience=5)` with `validation=(x, y)`"
_RECORD = "jf.Record(every=10, what=('loss', 'params'))"
_PREDICT = "fit.predict(x)"
_ERRORS = "jf.standard_errors(fit)"
_WEIGHTED = (
    "`jf.curve_fit(predict, start, (x, y), sigma=1 / weights)`, or `sigma=1 / np.sqrt(weights)` if they multiply the "
    "squares"
)
_GOODNESS = "jf.goodness_of_fit(fit)"
_LR = "jf.learning_rate_range(loss, params, data, optimizer=jf.optimizers.adam(0.01))"

NAMES = {
    # SciPy and NumPy
    "minimize": _LBFGS,
    "fmin": _LBFGS,
    "fmin_bfgs": _LBFGS,
    "fmin_l_bfgs_b": _LBFGS,
    "minimize_scalar": _LBFGS,
    "bfgs": "jf.optimizers.lbfgs()",
    "leastsq": _LEAST_SQUARES,
    "lsq": _LEAST_SQUARES,
    "lstsq": "jf.curve_fit(jf.models.polynomial(1), None, (x, y))",
    "polyfit": "jf.curve_fit(jf.models.polynomial(2), None, (x, y))",
    "linregress": "jf.curve_fit(jf.models.line, None, (x, y))",
    "lm": "jf.optimizers.levenberg_marquardt()",
    "trf": "jf.optimizers.levenberg_marquardt()",
    "differential_evolution": _STARTS,
    "basinhopping": _STARTS,
    "dual_annealing": _STARTS,
    "shgo": _STARTS,
    "brute": "jf.surface(loss, {'a': jf.Axis('a', values)}, data)",
    "approx_fprime": "jf.searches.finite_differences(0.01, 1e-3)",
    "Bounds": "jf.Bounded(value, low, high)",
    "OptimizeResult": "jf.Fit",
    "optimize": _FIT,
    # lmfit
    "Parameter": _BOUNDED,
    "Parameters": "{'a': 1.0, 'b': jf.Bounded(2.0, 0.0, 5.0), 'c': jf.Fixed(3.0)}",
    "Model": "a function model(params, x), or `jf.models.from_function(f)` of f(x, a, b)",
    "Minimizer": _FIT,
    "CompositeModel": "jf.models.gaussian + jf.models.line",
    "fit_report": "jf.report(fit)",
    "report_fit": "jf.report(fit)",
    "ci_report": "jf.intervals(fit, 'profile')",
    "conf_interval": "jf.intervals(fit, 'profile')",
    "conf_interval2d": "jf.plots.corner(fit)",
    "eval_uncertainty": "jf.band(fit, x)",
    "GaussianModel": "jf.models.gaussian",
    "LorentzianModel": "jf.models.lorentzian",
    "VoigtModel": "jf.models.voigt",
    "ExponentialModel": "jf.models.exponential_decay",
    "LinearModel": "jf.models.line",
    "PolynomialModel": "jf.models.polynomial(3)",
    "PowerLawModel": "jf.models.power_law",
    "ConstantModel": "jf.models.constant",
    "Pearson4Model": "jf.models.pearson_iv",
    "SkewedVoigtModel": "jf.models.skewed_voigt",
    "ThermalDistributionModel": "jf.models.thermal_distribution('bose_einstein')",
    "DampedOscillatorModel": "jf.models.driven_oscillator",
    "StepModel": "jf.models.linear_step",
    "RectangleModel": "jf.models.linear_rectangle",
    "SplineModel": "jf.models.spline(np.linspace(0, 10, 6))",
    "ModelResult": "jf.Fit",
    # Keras
    "Sequential": _DENSE,
    "MLP": _DENSE,
    "EarlyStopping": _PATIENCE,
    "ReduceLROnPlateau": "jf.optimizers.reduced_on_plateau(jf.optimizers.adam(0.01))",
    "LearningRateScheduler": "jf.optimizers.adam(jf.schedules.cosine(0.01, 1000))",
    "ModelCheckpoint": "jf.fit(loss, params, data, optimizer=optimizer, checkpoint='run.safetensors')",
    "MeanSquaredError": "jf.losses.mse(predict)",
    "MeanAbsoluteError": "jf.losses.mae(predict)",
    "SparseCategoricalCrossentropy": "jf.losses.softmax_cross_entropy(predict)",
    "CategoricalCrossentropy": "jf.losses.softmax_cross_entropy(predict)",
    "GaussianNoise": "jf.losses.input_noise(jf.losses.mse(predict), scale=0.1)",
    "compile": _FIT,
    "evaluate": "loss(fit.params, x, y)",
    "callbacks": _RECORD,
    "History": "fit.history",
    "Callback": _RECORD,
    # PyTorch
    "DataLoader": "jf.fit(loss, params, data, optimizer=optimizer, batches=jf.Batches(32), key=0)",
    "MSELoss": "jf.losses.mse(predict)",
    "L1Loss": "jf.losses.mae(predict)",
    "HuberLoss": "jf.losses.huber(predict, delta=1.0)",
    "SmoothL1Loss": "jf.losses.huber(predict, delta=1.0)",
    "CrossEntropyLoss": "jf.losses.softmax_cross_entropy(predict)",
    "NLLLoss": "jf.losses.softmax_cross_entropy(predict)",
    "GaussianNLLLoss": "jf.losses.chi_squared(predict)",
    "Linear": "jf.models.dense((1, 1))",
    "Module": "a function model(params, x), such as `" + _DENSE + "`",
    "manual_seed": _KEY,
    "lr_scheduler": "jf.schedules.cosine(0.01, 1000)",
    "StepLR": "jf.schedules.stepwise(0.01, 0.1, 500)",
    "MultiStepLR": "jf.schedules.milestones(0.01, 0.1, at=(100, 200))",
    "OneCycleLR": "jf.schedules.one_cycle(0.01, 1000)",
    "CosineAnnealingWarmRestarts": "jf.schedules.cosine_restarts(0.01, 100)",
    "LinearLR": "jf.schedules.warmup(0.01, 100)",
    "clip_grad_norm_": "jf.optimizers.clipped(jf.optimizers.adam(0.01), 1.0, eps=1e-6)",
    "clip_by_global_norm": "jf.optimizers.clipped(jf.optimizers.adam(0.01), 1.0)",
    "ExponentialLR": "jf.schedules.exponential(0.01, 0.99)",
    "CosineAnnealingLR": "jf.schedules.cosine(0.01, 1000)",
    "backward": _GRADIENT,
    "train": _FIT,
    "zero_grad": "jf.step(loss, params, data, optimizer=optimizer)",
    "lr_find": _LR,
    "lr_finder": _LR,
    # JAX and Optax
    "grad": _GRADIENT,
    "hessian": "jf.hessian_spectrum(loss, params, data)",
    "apply_updates": "jf.step(loss, params, data, optimizer=optimizer)",
    "inject_hyperparams": "jf.optimizer(optax.adam, learning_rate=0.01)",
    "chain": "jf.optimizer(factory, learning_rate=0.01)",
    "l2_loss": "jf.losses.mse(predict)",
    "squared_error": "jf.losses.mse(predict)",
    "huber_loss": "jf.losses.huber(predict, delta=1.0)",
    "softmax_cross_entropy_with_integer_labels": "jf.losses.softmax_cross_entropy(predict)",
    "cosine_decay_schedule": "jf.schedules.cosine(0.01, 1000)",
    "warmup_cosine_decay_schedule": "jf.schedules.warmup_cosine(0.01, 100, 1000)",
    "exponential_decay_schedule": "jf.schedules.exponential(0.01, 0.99)",
    "piecewise_constant_schedule": "jf.schedules.milestones(0.01, 0.1, at=(100, 200))",
    "polynomial_schedule": "jf.schedules.polynomial(0.01, 1000)",
    "linear_schedule": "jf.schedules.polynomial(0.01, 1000)",
    "constant_schedule": "jf.schedules.constant(0.01)",
    "global_norm": "jf.Record(what=('loss', 'gradient_norm'))",
    "add_decayed_weights": "jf.losses.mse(predict) + jf.losses.l2(1e-3)",
    # scikit-learn and statsmodels
    "LinearRegression": "jf.curve_fit(jf.models.line, None, (x, y))",
    "Ridge": "jf.losses.mse(predict) + jf.losses.l2(1e-3)",
    "MLPRegressor": _DENSE,
    "MLPClassifier": "jf.losses.softmax_cross_entropy(jf.models.dense((2, 16, 3)))",
    "LogisticRegression": "jf.losses.softmax_cross_entropy(jf.models.dense((2, 3)))",
    "GridSearchCV": "jf.sweep(loss, params, data, optimizer=jf.optimizers.adam(jf.Axis('rate', [1e-3, 1e-2])))",
    "RandomizedSearchCV": "jf.sweep(loss, params, data, optimizer=jf.optimizers.adam(jf.Axis('rate', [1e-3, 1e-2])))",
    "grid_search": "jf.sweep(loss, params, data, optimizer=jf.optimizers.adam(jf.Axis('rate', [1e-3, 1e-2])))",
    "train_test_split": "jf.datasets.split((x, y), 0.2, key=0)",
    "StandardScaler": "jf.datasets.standardize(x)",
    "PolynomialFeatures": "jf.models.polynomial(3)",
    "mean_squared_error": "jf.losses.mse(predict)",
    "mean_absolute_error": "jf.losses.mae(predict)",
    "r2_score": "jf.goodness_of_fit(fit).r_squared",
    "summary": "jf.report(fit)",
    # of several
    "predict": _PREDICT,
    "eval": _PREDICT,
    "bounds": "`jf.Bounded(value, low, high)` at a leaf of the params",
    "constraints": "`jf.Bounded(value, low, high)`, `jf.Fixed(value)` and `jf.Tied(function)` at leaves of the params",
    "fixed": "jf.Fixed(value)",
    "weights": _WEIGHTED,
    "plot": "jf.plots.fit(fit)",
    "errors": _ERRORS,
    "pcov": "jf.covariance(fit)",
    "confidence_intervals": "jf.intervals(fit)",
    "prediction_interval": "jf.band(fit, x, kind='prediction')",
    "regularization": "jf.losses.mse(predict) + jf.losses.l2(1e-3)",
    "chi2": "jf.losses.chi_squared(predict)",
    "early_stopping": _PATIENCE,
    "callback": _RECORD,
    "jacobian": _GRADIENT,
    "seed": _KEY,
    "random_state": _KEY,
    "tolerance": _STOP,
    "momentum_sgd": "jf.optimizers.momentum(0.01, 0.9)",
}

_EXP, _QUADRATIC = "jf.models.exponential_decay", "jf.models.polynomial(2)"
_STRETCHED, _MOFFAT = "jf.models.stretched_exponential + jf.models.constant", "jf.models.moffat"
_LANGMUIR, _SPLINE = "jf.models.michaelis_menten", "jf.models.spline(np.linspace(0, 10, 6))"
_BOSE, _FERMI, _MAXWELL = (f"jf.models.thermal_distribution('{kind}')"
                           for kind in ("bose_einstein", "fermi_dirac", "maxwell_boltzmann"))  # fmt: skip
_TWO_CLASSES = "`jf.losses.softmax_cross_entropy(predict)` with two outputs"
_JOINT = "jf.losses.joint(first=loss, second=loss)"
_ODR = "jf.losses.orthogonal_distance(predict)"
_LIKELIHOOD, _COUNTS = "jf.losses.likelihood(f)", "jf.losses.poisson(predict)"
_ROBUST = "jf.losses.huber(predict, delta=1.0)"
_DESCENT = "jf.optimizers.sgd(0.01)"
_SMOOTH = "jf.optimizers.lbfgs()"
_ANNEALED = "jf.schedules.warmup_cosine(0.01, 100, 1000)"

IN_MODULE = {  # what a name means in one module, where it means something else elsewhere or nothing
    "jaxfit": {
        "stderr": _ERRORS, "std_err": _ERRORS, "error": _ERRORS, "uncertainty": _ERRORS, "ci": "jf.intervals(fit)",
        "covariance_matrix": "jf.covariance(fit)", "corr": "jf.correlations(fit)", "Param": _BOUNDED,
        "params": _BOUNDED, "constraint": "jf.Bounded(value, low, high)", "penalty": "jf.losses.l2(1e-3)",
        "loss": "jf.losses.mse(predict)", "value_and_grad": "jf.backprop(loss, params, data)",
        "likelihood": _LIKELIHOOD, "mcmc": "jf.bootstrap(fit, key=0)",
        "resample": "jf.bootstrap(fit, key=0)",
        "seed": _KEY, "random": _KEY,
        "score": _GOODNESS + ".r_squared", "r_squared": _GOODNESS + ".r_squared",
        "hessian_eigenvalues": "jf.hessian_spectrum(loss, params, data)", "learning_rate_finder": _LR,
        "loss_landscape": "jf.surface(loss, {'a': jf.Axis('a', values)}, data)",
        "cross_validate": "jf.datasets.split((x, y), 0.2, key=0)", "KFold": "jf.datasets.split((x, y), 0.2, key=0)",
        "cross_val_score": "jf.datasets.split((x, y), 0.2, key=0)",
    },
    "jaxfit.models": {
        "linear": "jf.models.line", "exp": _EXP, "exponential": _EXP, "quadratic": _QUADRATIC, "parabola": _QUADRATIC,
        "cubic": "jf.models.polynomial(3)", "sigmoid": "jf.models.logistic", "poly": _QUADRATIC,
        "sine": "jf.models.damped_oscillation", "sin": "jf.models.damped_oscillation",
        "cos": "jf.models.damped_oscillation", "cosine": "jf.models.damped_oscillation",
        "power": "jf.models.power_law", "const": "jf.models.constant", "nn": _DENSE, "network": _DENSE,
        "biexponential": "jf.models.exponentials(2)", "double_exponential": "jf.models.exponentials(2)",
        "function": "jf.models.from_function(f)", "SSfol": "jf.models.oral_dose", "SSlogis": "jf.models.logistic",
        "SSasympOff": "jf.models.delayed_rise", "SSbiexp": "jf.models.exponentials(2)", "weibull": _STRETCHED,
        "SSweibull": _STRETCHED, "pearson7": _MOFFAT, "pearson_vii": _MOFFAT, "students_t": _MOFFAT,
        "breit_wigner": "jf.models.fano", "exgaussian": "jf.models.exponential_gaussian", "langmuir": _LANGMUIR,
        "freundlich": "jf.models.power_law", "step": "jf.models.smooth_step", "pearson4": "jf.models.pearson_iv",
        "damped_oscillator": "jf.models.driven_oscillator", "resonance": "jf.models.driven_oscillator",
        "bose_einstein": _BOSE, "bose": _BOSE, "fermi_dirac": _FERMI, "fermi": _FERMI, "maxwell_boltzmann": _MAXWELL,
        "boltzmann": _MAXWELL, "ramp": "jf.models.linear_step", "trapezoid": "jf.models.linear_rectangle",
        "top_hat": "jf.models.rectangle", "bspline": _SPLINE, "b_spline": _SPLINE, "cubic_spline": _SPLINE,
        "thermal": _FERMI,
    },
    "jaxfit.losses": {
        "shared": _JOINT, "global_fit": _JOINT, "simultaneous": _JOINT, "odr": _ODR, "deming": _ODR,
        "l1": "`jf.losses.mae(predict)`; a penalty of that kind is a function loss(params) of your own",
        "lasso": "`jf.losses.mae(predict)`; a penalty of that kind is a function loss(params) of your own",
        "cross_entropy": "jf.losses.softmax_cross_entropy(predict)", "logistic": _TWO_CLASSES, "bce": _TWO_CLASSES,
        "softmax": "jf.losses.softmax_cross_entropy(predict)", "binary_cross_entropy": _TWO_CLASSES,
        "nll": _LIKELIHOOD, "log_likelihood": _LIKELIHOOD, "cash": _COUNTS, "cstat": _COUNTS, "deviance": _COUNTS,
        "smooth_l1": _ROBUST, "biweight": "jf.losses.tukey(predict, delta=4.685)",
        "bisquare": "jf.losses.tukey(predict, delta=4.685)", "charbonnier": "jf.losses.soft_l1(predict, delta=1.0)",
        "lorentzian": "jf.losses.cauchy(predict, delta=1.0)", "sse": "jf.losses.rss(predict)",
        "rmse": "jf.losses.mse(predict)", "weighted_mse": "jf.losses.chi_squared(predict)",
    },
    "jaxfit.optimizers": {
        "gd": _DESCENT, "gradient_descent": _DESCENT, "newton": _SMOOTH, "cg": _SMOOTH, "conjugate_gradient": _SMOOTH,
        "nelder_mead": _SMOOTH, "powell": _SMOOTH, "trust_region": _SMOOTH, "nag": "jf.optimizers.nesterov(0.01, 0.9)",
        "sgd_momentum": "jf.optimizers.momentum(0.01, 0.9)",
    },
    "jaxfit.schedules": {
        "linear": "jf.schedules.polynomial(0.01, 1000)", "step": "jf.schedules.stepwise(0.01, 0.1, 500)",
        "piecewise": "jf.schedules.stepwise(0.01, 0.1, 500)", "cosine_decay": "jf.schedules.cosine(0.01, 1000)",
        "exponential_decay": "jf.schedules.exponential(0.01, 0.99)", "warmup_cosine_decay": _ANNEALED,
        "sgdr": "jf.schedules.cosine_restarts(0.01, 1000)",
        "reduce_on_plateau": "jf.schedules.cosine(0.01, 1000)",
    },
    "jaxfit.plots": {
        "loss": "jf.plots.loss_history({'fit': fit})", "history": "jf.plots.loss_history({'fit': fit})",
        "loss_curve": "jf.plots.loss_history({'fit': fit})", "learning_curve": "jf.plots.loss_history({'fit': fit})",
        "residuals": "jf.plots.fit(fit)", "band": "jf.plots.fit(fit)", "confidence": "jf.plots.corner(fit)",
        "heatmap": "jf.plots.landscape", "animation": "jf.plots.descent_animation", "scatter": "jf.plots.fit(fit)",
        "trajectory": "jf.plots.contour", "path": "jf.plots.contour", "surface": "jf.plots.surface_3d",
        "error": "jf.plots.fit(fit)",
    },
}  # fmt: skip

EXAMPLES = {
    "optimizer": "jf.optimizers.adam(0.01)",
    "key": "0",
    "hyperparameters": "learning_rate=0.01",
    "coords": "learning_rate=1e-4",
    "kwargs": "key=0",
}

_MARKED = "`jf.Bounded(value, low, high)` at a leaf of the params"
_SIGMA = (
    "`jf.curve_fit(predict, start, (x, y), sigma=sigma)`, or `jf.losses.chi_squared(predict)` with `data=(x, y, sigma)`"
)
_DERIVATIVES = "nothing, since JAX differentiates the loss"
_COMPILED = "nothing, since the whole run is compiled"
_ADAM = "optimizer=jf.optimizers.adam(0.01)"
_STEPS = ("steps", "samples", "count")
_TOLERANCE = ("stop=" + _STOP,)
_START = ("start", "params")
_WEIGHTS = (_WEIGHTED,)

ARGUMENTS = {  # the first of these that a function takes, else the first that is an expression
    "p0": _START, "x0": _START, "init": _START, "initial": _START, "initial_guess": _START, "guess": _START,
    "init_params": _START, "params": ("start", "params"), "start": ("params", "start"), "theta": _START,
    "weights": _WEIGHTS, "sample_weight": _WEIGHTS, "w": _WEIGHTS, "yerr": ("sigma", _SIGMA), "dy": ("sigma", _SIGMA),
    "err": ("sigma", _SIGMA), "error": ("sigma", _SIGMA), "uncertainty": ("sigma", _SIGMA), "sigma": ("sigma", _SIGMA),
    "cov": ("sigma", _SIGMA), "std": ("sigma", _SIGMA), "absolute_sigma": ("absolute_sigma", _SIGMA),
    "bounds": (_MARKED,), "min": (_MARKED,), "max": (_MARKED,), "lower": ("low", _MARKED), "upper": ("high", _MARKED),
    "lb": ("low", _MARKED), "ub": ("high", _MARKED), "vary": ("`jf.Fixed(value)` at a leaf of the params",),
    "expr": ("`jf.Tied(lambda p: 2 * p['a'])` at a leaf of the params",),
    "constraints": ("`jf.Bounded(value, low, high)` or `jf.Tied(function)` at a leaf of the params",),
    "x": ("x", "data=(x, y)"), "y": ("y", "data=(x, y)"), "xdata": ("x", "data=(x, y)"),
    "ydata": ("y", "data=(x, y)"), "args": ("data=(x, y)",), "X": ("x", "data=(x, y)"), "t": ("x", "data=(x, y)"),
    "fun": ("loss", "predict", "function"), "func": ("predict", "loss", "function"),
    "f": ("predict", "loss", "function"),
    "model": ("predict", "loss", "`jf.losses.mse(model)` as the loss"), "loss_fn": ("loss",), "objective": ("loss",),
    "criterion": ("loss",), "residuals": ("residuals", "loss"), "fcn": ("predict", "loss"),
    "maxiter": _STEPS, "max_iter": _STEPS, "max_nfev": _STEPS, "maxfev": _STEPS, "niter": _STEPS, "n_iter": _STEPS,
    "num_steps": _STEPS, "max_steps": _STEPS, "n_steps": _STEPS, "iterations": _STEPS, "epochs": _STEPS,
    "n_epochs": _STEPS, "num_epochs": _STEPS, "max_epochs": _STEPS, "nfev": _STEPS,
    "tol": _TOLERANCE, "ftol": _TOLERANCE, "xtol": _TOLERANCE, "gtol": _TOLERANCE, "rtol": _TOLERANCE,
    "atol": _TOLERANCE, "tolerance": _TOLERANCE, "patience": ("stop=jf.Stop(patience=5)",),
    "early_stopping": ("stop=jf.Stop(patience=5)",), "options": (_ADAM,),
    "lr": ("learning_rate", "rate", _ADAM), "eta": ("learning_rate", "rate", _ADAM),
    "learning_rate": ("learning_rate", "rate", _ADAM), "alpha": ("learning_rate", "level", "strength"),
    "step_size": ("learning_rate", "rate", _ADAM), "method": ("method", _ADAM),
    "solver": ("optimizer", "method"), "algorithm": ("optimizer", "method"), "opt": ("optimizer",),
    "tx": ("optimizer",), "jac": (_DERIVATIVES,),
    "gradient": (_DERIVATIVES,), "hess": (_DERIVATIVES,),
    "maximize": ("`lambda params, *data: -f(params, *data)` as the loss",),
    **dict.fromkeys(("foreach", "fused", "capturable", "differentiable", "jit_compile"), (_COMPILED,)),
    "gradient_accumulation_steps": ("`jf.optimizers.accumulated(optimizer, 4)` around it",),
    "beta_1": ("b1",), "beta_2": ("b2",), "beta1": ("b1", "betas"), "beta2": ("b2", "betas"), "betas": ("b1",),
    "epsilon": ("eps",), "b1": ("beta1", "beta_1", "betas"), "b2": ("beta2", "beta_2", "betas"),
    "beta": ("momentum", "decay", "b1"), "rho": ("decay",), "mu": ("momentum",),
    "weight_decay": ("weight_decay", "`jf.losses.mse(predict) + jf.losses.l2(1e-3)` as the loss"),
    "batch_size": ("size", "batches=jf.Batches(32)"), "minibatch": ("size", "batches=jf.Batches(32)"),
    "batch": ("batches", "size"), "shuffle": ("batches=jf.Batches(32)", "key"),
    "validation_data": ("validation=(x, y)",), "validation_split": ("validation=(x, y)",),
    "val_data": ("validation=(x, y)",), "test_data": ("validation=(x, y)",), "verbose": ("progress",),
    "disp": ("progress",), "show_progress": ("progress",),
    "callback": ("record=" + _RECORD,), "callbacks": ("record=" + _RECORD,),
    "metrics": ("record=" + _RECORD,), "history": ("record=" + _RECORD,),
    "iter_cb": ("record=" + _RECORD,), "seed": ("key",), "random_state": ("key",), "rng": ("key",),
    "prng_key": ("key",), "dtype": ("precision='float64'",), "x64": ("precision='float64'",), "nan_policy": (
        "`jf.losses.mse(predict, masked=True)` with `data=(x, y, where)`",
    ),
    "mask": ("masked", "`jf.losses.mse(predict, masked=True)` with `data=(x, y, where)`"),
    "confidence": ("level",), "confidence_level": ("level",), "cl": ("level",), "ci": ("level",),
    "sigmas": ("level", "reach"), "n_samples": ("samples", "count"), "num_samples": ("samples", "count"),
    "n_boot": ("samples",), "n": ("samples", "count", "steps"), "n_starts": ("count",), "restarts": ("count",),
    "axes": ("ax",), "path": ("store", "checkpoint", "path"), "folder": ("store", "path"), "cache": ("store",),
    "resume": ("store", "checkpoint"), "filename": ("checkpoint", "store"), "n_jobs": ("executor",),
    "workers": ("executor",),
    "regularization": ("strength", "`jf.losses.mse(predict) + jf.losses.l2(1e-3)` as the loss"),
    "reg": ("strength",), "lam": ("strength",), "threshold": ("delta",), "full_output": (
        "nothing: `fit.params`, `jf.covariance(fit)`, `fit.steps`",
    ),
}  # fmt: skip

ATTRIBUTES = {  # of a fit
    "success": "fit.status == jf.Status.CONVERGED", "converged": "fit.status == jf.Status.CONVERGED",
    "x": "fit.params", "popt": "fit.params", "best_values": "fit.params", "values": "fit.params", "coef_": "fit.params",
    "parameters": "fit.params", "coefficients": "fit.params", "weights": "fit.params", "state": "fit.params",
    "stderr": _ERRORS, "perr": _ERRORS, "errors": _ERRORS, "bse": _ERRORS, "uncertainties": _ERRORS,
    "standard_errors": _ERRORS, "std": _ERRORS, "sigma": _ERRORS, "pcov": "jf.covariance(fit)",
    "covar": "jf.covariance(fit)", "cov_x": "jf.covariance(fit)", "covariance": "jf.covariance(fit)",
    "hess_inv": "jf.covariance(fit)", "correlations": "jf.correlations(fit)", "correl": "jf.correlations(fit)",
    "summary": "jf.report(fit)", "fit_report": "jf.report(fit)", "report": "jf.report(fit)",
    "plot": "jf.plots.fit(fit)", "plot_fit": "jf.plots.fit(fit)", "plot_residuals": "jf.plots.fit(fit)",
    "plot_loss": "jf.plots.loss_history({'fit': fit})", "fun": "fit.loss", "cost": "fit.loss", "chisqr": "fit.loss",
    "chi2": "fit.loss", "chi_squared": "fit.loss", "value": "fit.loss", "final_loss": "fit.loss",
    "losses": "fit.history.loss", "loss_history": "fit.history.loss", "loss_curve_": "fit.history.loss",
    "redchi": _GOODNESS + ".reduced_chi_squared", "reduced_chi_squared": _GOODNESS + ".reduced_chi_squared",
    "aic": _GOODNESS + ".aic", "bic": _GOODNESS + ".bic", "rsquared": _GOODNESS + ".r_squared",
    "r2": _GOODNESS + ".r_squared", "score": _GOODNESS + ".r_squared", "nfree": _GOODNESS + ".degrees_of_freedom",
    "pvalue": _GOODNESS + ".p_value", "goodness_of_fit": _GOODNESS, "residual": "jf.residuals(fit).raw",
    "residuals": "jf.residuals(fit).raw", "resid": "jf.residuals(fit).raw", "nfev": "fit.steps", "nit": "fit.steps",
    "n_iter_": "fit.steps", "iterations": "fit.steps", "epochs": "fit.steps", "message": "jf.explain(fit)",
    "reason": "jf.explain(fit)", "explain": "jf.explain(fit)", "retry": "jf.explain(fit).retry()",
    "conf_interval": "jf.intervals(fit, 'profile')", "conf_int": "jf.intervals(fit)", "ci": "jf.intervals(fit)",
    "confidence_intervals": "jf.intervals(fit)", "intervals": "jf.intervals(fit)", "best_fit": "fit.predict(x)",
    "fittedvalues": "fit.predict(x)", "eval": "fit.predict(x)", "evaluate": "fit.predict(x)",
    "predictions": "fit.predict(x)", "eval_uncertainty": "jf.band(fit, x)",
    "band": "jf.band(fit, x)", "init_params": "fit.problem.params", "start": "fit.problem.params",
    "data": "fit.problem.data", "data_": "fit.problem.data", "results": "fit.history", "loss_fn": "fit.problem.loss",
    "best_loss": "min(fit.history.loss)", "best": "fit.params",
}  # fmt: skip

OF_GRID = {  # attributes of a grid
    "loss": "grid.results.loss", "losses": "grid.results.loss", "status": "grid.results.status",
    "steps": "grid.results.steps", "params": "`grid.results`, whose variables are params.<path>",
    "history": "`grid.results['history.loss']` of a sweep with record=jf.Record(what=('loss',))",
    "coords": "grid.results.coords", "axes": "grid.results.coords", "dims": "grid.results.sizes",
    "sizes": "grid.results.sizes", "shape": "grid.results.sizes", "values": "grid.results", "data": "grid.results",
    "dataset": "grid.results", "to_xarray": "grid.results", "lanes": "grid.results", "best": "jf.best(grid)",
    "best_params": "jf.best(grid).params", "best_params_": "jf.best(grid).params", "best_estimator_": "jf.best(grid)",
    "best_score_": "jf.best(grid).loss", "best_loss": "jf.best(grid).loss", "lane": "jf.lane(grid, rate=0.1)",
    "sel": "jf.lane(grid, rate=0.1)", "report": "jf.report(jf.best(grid))", "explain": "jf.explain(jf.best(grid))",
    "standard_errors": "jf.standard_errors(grid)", "errors": "jf.standard_errors(grid)",
    "intervals": "jf.intervals(grid)", "plot": "grid.to_html('sweep.html')", "verify": "jf.verify(grid)",
    "cv_results_": "grid.to_dataframe()", "to_csv": "grid.to_dataframe()", "to_pandas": "grid.to_dataframe()",
    "save": "jf.sweep(loss, params, data, optimizer=optimizer, store='folder')",
}  # fmt: skip
