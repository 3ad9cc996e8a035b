"""Settings of stage 2 with every part of the paper on, and distillation; by default they are off."""

WHOLE = {
    "update_prototypes": True,
    "mte": True,
    "atd": True,
    "ta": True,
    "lambda_distill": 1.0,
    "predict_skeletons": False,
}
