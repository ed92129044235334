"""Convolutional networks of timm: of each family its smallest ones, at least one for each way that it builds blocks."""

FAMILIES = {
    "byobnet": (
        "mobileone_s1 gernet_s repvgg_a0 regnetz_b16 resnext26ts eca_resnext26ts seresnext26ts gcresnext26ts "
        "bat_resnext26ts regnetz_c16 resnet32ts eca_resnet33ts seresnet33ts gcresnet33ts regnetz_d8 "
        "regnetz_d8_evos repvgg_b1g4"
    ),
    "convmixer": "convmixer_768_32 convmixer_1024_20_ks9_p14",
    "convnext": "convnext_zepto_rms convnext_zepto_rms_ols convnext_atto_rms convnextv2_atto",
    "cspnet": "cs3darknet_focus_s darknet17 cspresnext50 sedarknet21 cspresnet50 cspdarknet53 darknetaa53",
    "cspnext": "cspnext_tiny cspnext_s",
    "densenet": "densenet121 densenetblur121d",
    "dla": "dla46x_c dla46_c",
    "dpn": "dpn48b dpn68",
    "edgenext": "edgenext_xx_small edgenext_x_small edgenext_small",
    "efficientnet": (
        "mobilenetv2_035 mnasnet_small tinynet_e semnasnet_050 mnasnet_050 mobilenet_edgetpu_100 mixnet_s "
        "spnasnet_100 mobilenet_edgetpu_v2_xs efficientnet_lite0 efficientnet_b0 efficientnet_b0_gn "
        "efficientnet_blur_b0 efficientnet_es fbnetc_100 efficientnet_em efficientnet_el mixnet_xl "
        "efficientnet_x_b3 efficientnet_cc_b0_4e efficientnetv2_rw_t gc_efficientnetv2_rw_t mixnet_xxl "
        "efficientnet_h_b5"
    ),
    "fasternet": "fasternet_t0 fasternet_t1",
    "fastvit": "fastvit_t8 fastvit_mci0 fastvit_sa12 fastvit_ma36",
    "focalnet": "focalnet_tiny_srf focalnet_tiny_lrf",
    "ghostnet": "ghostnet_050 ghostnetv3_050",
    "hardcorenas": "hardcorenas_b hardcorenas_a",
    "hgnet": "hgnetv2_b0 hgnet_tiny",
    "hrnet": "hrnet_w18_small hrnet_w18_small_v2",
    "inception_next": "inception_next_atto inception_next_tiny",
    "inception_resnet_v2": "inception_resnet_v2",
    "inception_v3": "inception_v3",
    "inception_v4": "inception_v4",
    "lcnetv2": "lcnetv2_small lcnetv2_base",
    "mambaout": "mambaout_femto mambaout_kobe",
    "metaformer": "poolformerv2_s12 poolformer_s12 caformer_s18 convformer_s18",
    "mobilenetv3": "mobilenetv3_small_050 lcnet_035 fbnetv3_b",
    "nasnet": "nasnetalarge",
    "nfnet": "nf_regnet_b0 nf_resnet26 nf_ecaresnet26 nf_seresnet26 eca_nfnet_l0 nfnet_l0",
    "pnasnet": "pnasnet5large",
    "rdnet": "rdnet_tiny rdnet_small",
    "regnet": "regnetx_002 regnety_002 regnetz_005 regnetv_040",
    "repghost": "repghostnet_050 repghostnet_058",
    "repvit": "repvit_m1 repvit_m0_9",
    "res2net": "res2next50 res2net50_14w_8s",
    "resnest": "resnest14d resnest26d",
    "resnet": (
        "resnet10t resnetblur18 seresnet18 ecaresnext26t_32x4d ecaresnet26t seresnext26t_32x4d resnetaa34d "
        "seresnetaa50d ecaresnetlight resnetrs50 wide_resnet50_2 resnext50_32x4d"
    ),
    "resnetv2": "resnetv2_18 resnetv2_18d",
    "rexnet": "rexnet_100 rexnetr_100",
    "selecsls": "selecsls42 selecsls60",
    "senet": "legacy_seresnet18 legacy_seresnext26_32x4d",
    "sknet": "skresnet18",
    "starnet": "starnet_s050 starnet_s100",
    "tresnet": "tresnet_m tresnet_v2_l",
    "vgg": "vgg11",
    "vovnet": "ese_vovnet19b_slim_dw vovnet39a eca_vovnet39b",
    "xception": "legacy_xception",
    "xception_aligned": "xception41p xception41",
}
NETWORKS = [name for names in FAMILIES.values() for name in names.split()]
