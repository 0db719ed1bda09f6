"""The paper's Tables L.1, L.2 and L.3: accuracy in percent on ImageNet and averaged over the shifts."""

ROWS = {  # for the larger learning rate, and for the smaller where the table has both
    "Individual model, minimal aug": ((76.42, 43.21), (77.19, 47.98)),
    "Individual model, medium aug": ((78.83, 43.55), (79.51, 46.74)),
    "Individual model, strong aug": ((79.08, 43.75), (79.33, 46.62)),
    "Individual model, stochastic aug": ((78.94, 45.04), (79.48, 48.07)),
    "Individual model, stochastic aug, 3x epochs": ((78.38, 42.18), (79.59, 46.89)),
    "Distillation from the ensemble, no aug": ((78.59, 43.45), (79.13, 47.28)),
    "Distillation from the ensemble, stochastic aug": ((79.79, 45.63), (79.88, 47.49)),
    "Soup of minimal, medium and strong aug": ((80.24, 47.97), (80.08, 49.75)),
    "Ensemble of minimal, medium and strong aug": ((80.19, 46.33), (80.17, 49.36)),
    "Individual model, fix aug": ((79.43, 45.46), (79.70, 48.18)),
    "Individual model, fix aug, 4x epochs": ((78.57, 41.53), (79.96, 45.86)),
    "Soup of minimal, medium, strong and fix aug": ((80.41, 48.14), (80.17, 49.71)),
    "Vanilla fine-tuning, seed 0": ((79.32, 45.09),),
    "Vanilla fine-tuning, seed 1": ((79.16, 45.12),),
    "SAM fine-tuning, seed 0": ((79.61, 43.78),),
    "SAM fine-tuning, seed 1": ((79.59, 43.79),),
    "Soup of vanilla fine-tuning, seeds 0 and 1": ((79.78, 46.46),),
    "Soup of SAM fine-tuning, seeds 0 and 1": ((79.85, 44.44),),
    "Soup of vanilla and SAM fine-tuning, seed 0": ((80.04, 45.38),),
}
