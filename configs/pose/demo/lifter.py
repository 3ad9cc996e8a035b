# MotionBERT's design (W. Zhu et al., arXiv 2210.06551) at toy size: a DSTFormer over windows of up to 81 frames.
default_scope = "mmpose"

window = 81
train_codec = dict(type="MotionBERTLabel", num_keypoints=17, concat_vis=True, mode="train")
val_codec = dict(type="MotionBERTLabel", num_keypoints=17, concat_vis=True, rootrel=True)

model = dict(
    type="PoseLifter",
    backbone=dict(
        type="DSTFormer", in_channels=3, feat_size=64, depth=2, num_heads=4, mlp_ratio=2, seq_len=window, att_fuse=True
    ),
    head=dict(
        type="MotionRegressionHead",
        in_channels=64,
        out_channels=3,
        embedding_size=64,
        loss=dict(type="MPJPEVelocityJointLoss", lambda_3d_velocity=2.0),
        decoder=val_codec,
    ),
    test_cfg=dict(flip_test=False),
)

meta_keys = ("id", "category_id", "target_img_path", "flip_indices", "factor", "camera_param")
train_pipeline = [dict(type="GenerateTarget", encoder=train_codec), dict(type="PackPoseInputs", meta_keys=meta_keys)]
test_pipeline = [dict(type="GenerateTarget", encoder=val_codec), dict(type="PackPoseInputs", meta_keys=meta_keys)]

# The data sets only name the joints and the window; pipelines/maintain/demo_pose.py hands rendered walks to the pipelines.
train_dataloader = dict(dataset=dict(type="Human36mDataset", multiple_target=window, pipeline=train_pipeline))
test_dataloader = dict(dataset=dict(type="Human36mDataset", multiple_target=window, pipeline=test_pipeline))
val_dataloader = test_dataloader

frames_per_batch = 512
max_iters = 3000
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters)
optim_wrapper = dict(optimizer=dict(type="AdamW", lr=1e-3, weight_decay=0.01), clip_grad=dict(max_norm=1.0))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type="CosineAnnealingLR", eta_min=1e-6, by_epoch=False, begin=200, end=max_iters, T_max=max_iters - 200),
]
