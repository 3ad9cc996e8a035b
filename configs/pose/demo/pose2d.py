# RTMPose's design (J. Lu et al., arXiv 2303.07399) at toy size: CSPNeXt without its last stage, SimCC head, 64 x 128.
default_scope = "mmpose"

input_size = (64, 128)
codec = dict(
    type="SimCCLabel", input_size=input_size, sigma=(5.0, 6.0), simcc_split_ratio=4.0, normalize=False, use_dark=False
)

model = dict(
    type="TopdownPoseEstimator",
    data_preprocessor=dict(
        type="PoseDataPreprocessor", mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
    ),
    backbone=dict(
        type="mmdet.CSPNeXt",
        # in, out, blocks, identity shortcut, pyramid pooling; channels times widen_factor, blocks times deepen_factor
        arch_ovewrite=[[64, 128, 3, True, False], [128, 256, 6, True, False], [256, 512, 12, True, True]],
        expand_ratio=0.5,
        deepen_factor=0.167,
        widen_factor=0.375,
        out_indices=(3,),
        channel_attention=True,
        norm_cfg=dict(type="BN"),
        act_cfg=dict(type="SiLU"),
    ),
    head=dict(
        type="RTMCCHead",
        in_channels=192,
        out_channels=17,
        input_size=input_size,
        in_featuremap_size=(4, 8),
        simcc_split_ratio=codec["simcc_split_ratio"],
        final_layer_kernel_size=5,
        gau_cfg=dict(
            hidden_dims=128,
            s=64,
            expansion_factor=2,
            dropout_rate=0.0,
            drop_path=0.0,
            act_fn="SiLU",
            use_rel_bias=False,
            pos_enc=False,
        ),
        loss=dict(type="KLDiscretLoss", use_target_weight=True, beta=10.0, label_softmax=True),
        decoder=codec,
    ),
    test_cfg=dict(flip_test=False),
)

# The crop is the box: nothing is added around it.
test_pipeline = [
    dict(type="LoadImage"),
    dict(type="GetBBoxCenterScale", padding=1.0),
    dict(type="TopdownAffine", input_size=input_size),
    dict(type="PackPoseInputs"),
]
train_pipeline = [
    dict(type="LoadImage"),
    dict(type="GetBBoxCenterScale", padding=1.0),
    dict(type="RandomFlip", direction="horizontal"),
    dict(
        type="RandomBBoxTransform",
        shift_factor=0.06,
        shift_prob=0.5,
        scale_factor=[0.9, 1.2],
        scale_prob=0.5,
        rotate_factor=15,
        rotate_prob=0.25,
    ),
    dict(type="TopdownAffine", input_size=input_size),
    dict(type="PhotometricDistortion"),
    dict(type="GenerateTarget", encoder=codec),
    dict(type="PackPoseInputs"),
]

# The data sets only name the keypoints; pipelines/maintain/demo_pose.py hands rendered crops to the pipelines.
train_dataloader = dict(batch_size=64, dataset=dict(type="CocoDataset", pipeline=train_pipeline))
test_dataloader = dict(batch_size=64, dataset=dict(type="CocoDataset", pipeline=test_pipeline))
val_dataloader = test_dataloader

max_iters = 2600
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters)
optim_wrapper = dict(
    optimizer=dict(type="AdamW", lr=3e-3, weight_decay=0.02),
    clip_grad=dict(max_norm=5.0),
    paramwise_cfg=dict(norm_decay_mult=0, bias_decay_mult=0, bypass_duplicate=True),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=0.01, by_epoch=False, begin=0, end=150),
    dict(type="CosineAnnealingLR", eta_min=1e-5, by_epoch=False, begin=150, end=max_iters, T_max=max_iters - 150),
]
