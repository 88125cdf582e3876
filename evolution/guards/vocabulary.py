"""What a block may call: the names of torch, math and einops that a sequence mixer needs, and nothing else.

Lists of what is allowed stand here; whatever is not listed is refused. torch holds some 1,500 names, among them
modules such as `os` and `sys`, file access, the global random state and process-wide switches, so a list of what
is forbidden would never be complete. Left out besides those: dropout and batch normalisation (the model has
neither, and both break determinism or batch independence), named, sparse and quantised tensors, and custom
autograd functions.
"""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# torch.<name>
_TORCH = _words(
    """
    Size Tensor abs abs_ absolute acos acos_ acosh acosh_ adaptive_avg_pool1d adaptive_max_pool1d add addbmm
    addcdiv addcmul addmm addmv addmv_ addr adjoint affine_grid_generator all allclose amax amin aminmax angle any
    arange arccos arccos_ arccosh arccosh_ arcsin arcsin_ arcsinh arcsinh_ arctan arctan2 arctan_ arctanh arctanh_
    argmax argmin argsort argwhere as_tensor asin asin_ asinh asinh_ atan atan2 atan_ atanh atanh_ atleast_1d
    atleast_2d atleast_3d avg_pool1d baddbmm bartlett_window bfloat16 bilinear binary_cross_entropy_with_logits
    bincount bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor blackman_window
    block_diag bmm bool broadcast_shapes broadcast_tensors broadcast_to bucketize cartesian_prod cat cdist cdouble
    ceil ceil_ celu celu_ cfloat chain_matmul channel_shuffle cholesky cholesky_inverse cholesky_solve chunk clamp
    clamp_ clamp_max clamp_max_ clamp_min clamp_min_ clip clip_ clone column_stack combinations complex complex128
    complex64 concat concatenate conj conj_physical conj_physical_ constant_pad_nd contiguous_format conv1d conv2d
    conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d copysign corrcoef cos cos_ cosh cosh_
    cosine_similarity count_nonzero cov cross cummax cummin cumprod cumsum cumulative_trapezoid deg2rad deg2rad_
    det detach detach_ diag diag_embed diagflat diagonal diagonal_scatter diff digamma dist div divide dot double
    dsplit dstack dtype e einsum embedding empty empty_like eq equal erf erf_ erfc erfc_ erfinv exp exp2 exp2_ exp_
    expm1 expm1_ eye fill fill_ finfo fix fix_ flatten flip fliplr flipud float float16 float32 float64 float_power
    floor floor_ floor_divide fmax fmin fmod frac frac_ frexp frobenius_norm full full_like gather gcd gcd_ ge ger
    greater greater_equal grid_sampler grid_sampler_2d grid_sampler_3d group_norm gt half hamming_window
    hann_window hardshrink heaviside histc histogram histogramdd hsplit hstack hypot i0 i0_ igamma igammac iinfo
    imag index_add index_copy index_fill index_put index_put_ index_reduce index_select inf inner int int16 int32
    int64 int8 inverse is_complex is_conj is_floating_point is_neg is_nonzero is_same_size is_signed is_tensor
    isclose isfinite isin isinf isnan isneginf isposinf isreal kaiser_window kl_div kron kthvalue layer_norm lcm
    lcm_ ldexp ldexp_ le lerp less less_equal lgamma linspace log log10 log10_ log1p log1p_ log2 log2_ log_
    log_softmax logaddexp logaddexp2 logcumsumexp logdet logical_and logical_not logical_or logical_xor logit
    logit_ logspace logsumexp long lt lu_solve lu_unpack masked_fill masked_scatter masked_select matmul matrix_exp
    matrix_power max max_pool1d max_pool1d_with_indices max_pool2d max_pool3d maximum mean median meshgrid min
    minimum mm mode moveaxis movedim msort mul multiply mv mvlgamma nan nan_to_num nan_to_num_ nanmean nanmedian
    nanquantile nansum narrow ne neg neg_ negative negative_ newaxis nextafter no_grad nonzero nonzero_static norm
    norm_except_dim not_equal nuclear_norm numel ones ones_like outer pairwise_distance pdist permute pi pinverse
    pixel_shuffle pixel_unshuffle polar polygamma positive pow prelu preserve_format prod promote_types put qr
    quantile rad2deg rad2deg_ rand rand_like randint randn randn_like randperm range ravel real reciprocal
    reciprocal_ relu relu_ remainder repeat_interleave reshape resolve_conj resolve_neg result_type rms_norm roll
    rot90 round round_ row_stack rsqrt rsqrt_ scalar_tensor scatter scatter_add scatter_reduce searchsorted select
    select_scatter selu selu_ sgn short sigmoid sigmoid_ sign signbit sin sin_ sinc sinc_ sinh sinh_ slice_scatter
    slogdet softmax sort split split_with_sizes sqrt sqrt_ square square_ squeeze stack std std_mean sub subtract
    sum svd swapaxes swapdims t take take_along_dim tan tan_ tanh tanh_ tensor tensor_split tensordot threshold
    threshold_ tile topk trace transpose trapezoid trapz tril tril_indices triu triu_indices true_divide trunc
    trunc_ uint8 unbind unflatten unique unique_consecutive unravel_index unsafe_chunk unsafe_split
    unsafe_split_with_sizes unsqueeze vander var var_mean vdot view_as_complex view_as_real vmap vsplit vstack
    where xlogy xlogy_ zero_ zeros zeros_like
    """
)

# torch.nn.<name>
_NN = _words(
    """
    AvgPool1d AvgPool2d AvgPool3d Bilinear Buffer CELU ChannelShuffle CircularPad1d CircularPad2d CircularPad3d
    ConstantPad1d ConstantPad2d ConstantPad3d Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d
    CosineSimilarity ELU Embedding EmbeddingBag Flatten Fold GELU GLU GroupNorm Hardshrink Hardsigmoid Hardswish
    Hardtanh Identity LPPool1d LPPool2d LPPool3d LayerNorm LeakyReLU Linear LocalResponseNorm LogSigmoid LogSoftmax
    MaxPool1d MaxPool2d MaxPool3d Mish Module ModuleDict ModuleList PReLU PairwiseDistance Parameter ParameterDict
    ParameterList PixelShuffle PixelUnshuffle RMSNorm ReLU ReLU6 ReflectionPad1d ReflectionPad2d ReflectionPad3d
    ReplicationPad1d ReplicationPad2d ReplicationPad3d SELU Sequential SiLU Sigmoid Softmax Softmax2d Softmin
    Softplus Softshrink Softsign Tanh Tanhshrink Threshold Unflatten Unfold UpsamplingBilinear2d
    UpsamplingNearest2d ZeroPad1d ZeroPad2d ZeroPad3d functional init
    """
)

# torch.nn.functional.<name>
_FUNCTIONAL = _words(
    """
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d
    adaptive_max_pool1d_with_indices adaptive_max_pool2d adaptive_max_pool2d_with_indices adaptive_max_pool3d
    adaptive_max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d bilinear celu celu_ channel_shuffle conv1d
    conv2d conv3d conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d cosine_similarity elu elu_ embedding
    embedding_bag fold gelu glu group_norm hardshrink hardsigmoid hardswish hardtanh hardtanh_ interpolate
    layer_norm leaky_relu leaky_relu_ linear local_response_norm log_softmax logsigmoid lp_pool1d lp_pool2d
    lp_pool3d max_pool1d max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d
    max_pool3d_with_indices mish native_channel_shuffle normalize one_hot pad pairwise_distance pixel_shuffle
    pixel_unshuffle prelu relu relu6 relu_ rms_norm scaled_dot_product_attention selu selu_ sigmoid silu softmax
    softmin softplus softshrink softsign tanh tanhshrink threshold threshold_ unfold
    """
)

# torch.linalg.<name>
_LINALG = _words(
    """
    cholesky cholesky_ex cond cross det diagonal eig eigh eigvals eigvalsh inv inv_ex ldl_factor ldl_factor_ex
    ldl_solve lstsq lu lu_factor lu_factor_ex lu_solve matmul matrix_exp matrix_norm matrix_power matrix_rank
    multi_dot norm pinv qr slogdet solve solve_ex solve_triangular svd svdvals tensorinv tensorsolve vander vecdot
    vector_norm
    """
)

# torch.fft.<name>
_FFT = _words(
    """
    fft fft2 fftfreq fftn fftshift hfft hfft2 hfftn ifft ifft2 ifftn ifftshift ihfft ihfft2 ihfftn irfft irfft2
    irfftn rfft rfft2 rfftfreq rfftn
    """
)

# torch.special.<name>
_SPECIAL = _words(
    """
    airy_ai bessel_j0 bessel_j1 bessel_y0 bessel_y1 chebyshev_polynomial_t chebyshev_polynomial_u
    chebyshev_polynomial_v chebyshev_polynomial_w digamma entr erf erfc erfcx erfinv exp2 expit expm1 gammainc
    gammaincc gammaln hermite_polynomial_h hermite_polynomial_he i0 i0e i1 i1e laguerre_polynomial_l
    legendre_polynomial_p log1p log_ndtr log_softmax logit logsumexp modified_bessel_i0 modified_bessel_i1
    modified_bessel_k0 modified_bessel_k1 multigammaln ndtr ndtri polygamma psi round scaled_modified_bessel_k0
    scaled_modified_bessel_k1 shifted_chebyshev_polynomial_t shifted_chebyshev_polynomial_u
    shifted_chebyshev_polynomial_v shifted_chebyshev_polynomial_w sinc softmax spherical_bessel_j0 xlog1py xlogy
    zeta
    """
)

# torch.nn.init.<name>
_INIT = _words(
    """
    calculate_gain constant_ dirac_ eye_ kaiming_normal_ kaiming_uniform_ normal_ ones_ orthogonal_ sparse_
    trunc_normal_ uniform_ xavier_normal_ xavier_uniform_ zeros_
    """
)

# math.<name>
_MATH = _words(
    """
    acos acosh asin asinh atan atan2 atanh cbrt ceil comb copysign cos cosh degrees dist e erf erfc exp exp2 expm1
    fabs factorial floor fmod frexp fsum gamma gcd hypot inf isclose isfinite isinf isnan isqrt lcm ldexp lgamma
    log log10 log1p log2 modf nan nextafter perm pi pow prod radians remainder sin sinh sqrt tan tanh tau trunc ulp
    """
)

# methods and attributes of a tensor
_TENSOR = _words(
    """
    H T abs abs_ absolute absolute_ acos acos_ acosh acosh_ add add_ addbmm addbmm_ addcdiv addcdiv_ addcmul
    addcmul_ addmm addmm_ addmv addmv_ addr addr_ adjoint all allclose amax amin aminmax angle any arccos arccos_
    arccosh arccosh_ arcsin arcsin_ arcsinh arcsinh_ arctan arctan2 arctan2_ arctan_ arctanh arctanh_ argmax argmin
    argsort argwhere asin asin_ asinh asinh_ atan atan2 atan2_ atan_ atanh atanh_ baddbmm baddbmm_ bernoulli_
    bfloat16 bincount bitwise_and bitwise_and_ bitwise_left_shift bitwise_left_shift_ bitwise_not bitwise_not_
    bitwise_or bitwise_or_ bitwise_right_shift bitwise_right_shift_ bitwise_xor bitwise_xor_ bmm bool broadcast_to
    byte cdouble ceil ceil_ cfloat chalf char cholesky cholesky_inverse cholesky_solve chunk clamp clamp_ clamp_max
    clamp_max_ clamp_min clamp_min_ clip clip_ clone conj conj_physical conj_physical_ contiguous copy_ copysign
    copysign_ corrcoef cos cos_ cosh cosh_ count_nonzero cov cross cummax cummin cumprod cumprod_ cumsum cumsum_
    deg2rad deg2rad_ det detach detach_ device diag diag_embed diagflat diagonal diagonal_scatter diff digamma
    digamma_ dim dist div div_ divide divide_ dot double dsplit dtype eq eq_ equal erf erf_ erfc erfc_ erfinv
    erfinv_ exp exp2 exp2_ exp_ expand expand_as expm1 expm1_ fill_ fill_diagonal_ fix fix_ flatten flip fliplr
    flipud float float_power float_power_ floor floor_ floor_divide floor_divide_ fmax fmin fmod fmod_ frac frac_
    frexp gather gcd gcd_ ge ge_ ger greater greater_ greater_equal greater_equal_ gt gt_ half hardshrink heaviside
    heaviside_ histc histogram hsplit hypot hypot_ i0 i0_ igamma igamma_ igammac igammac_ imag index index_add
    index_add_ index_copy index_copy_ index_fill index_fill_ index_put index_put_ index_reduce index_reduce_
    index_select inner int inverse is_complex is_conj is_contiguous is_floating_point is_neg is_nonzero is_signed
    isclose isfinite isinf isnan isneginf isposinf isreal item kron kthvalue lcm lcm_ ldexp ldexp_ le le_ lerp
    lerp_ less less_ less_equal less_equal_ lgamma lgamma_ log log10 log10_ log1p log1p_ log2 log2_ log_
    log_softmax logaddexp logaddexp2 logcumsumexp logdet logical_and logical_and_ logical_not logical_not_
    logical_or logical_or_ logical_xor logical_xor_ logit logit_ logsumexp long lt lt_ lu mH mT masked_fill
    masked_fill_ masked_scatter masked_scatter_ masked_select matmul matrix_exp matrix_power max maximum mean
    median min minimum mm mode moveaxis movedim msort mul mul_ multiply multiply_ mv mvlgamma mvlgamma_ nan_to_num
    nan_to_num_ nanmean nanmedian nanquantile nansum narrow narrow_copy ndim ndimension ne ne_ neg neg_ negative
    negative_ nelement new_empty new_full new_ones new_zeros nextafter nextafter_ nonzero nonzero_static norm
    normal_ not_equal not_equal_ numel outer permute pinverse polygamma polygamma_ positive pow pow_ prelu prod put
    put_ qr quantile rad2deg rad2deg_ ravel real reciprocal reciprocal_ relu relu_ remainder remainder_ repeat
    repeat_interleave requires_grad_ reshape reshape_as resolve_conj resolve_neg roll rot90 round round_ rsqrt
    rsqrt_ scatter scatter_ scatter_add scatter_add_ scatter_reduce scatter_reduce_ select select_scatter sgn sgn_
    shape short sigmoid sigmoid_ sign sign_ signbit sin sin_ sinc sinc_ sinh sinh_ size slice_scatter slogdet
    softmax sort split split_with_sizes sqrt sqrt_ square square_ squeeze squeeze_ std stride sub sub_ subtract
    subtract_ sum sum_to_size svd swapaxes swapaxes_ swapdims swapdims_ t t_ take take_along_dim tan tan_ tanh
    tanh_ tensor_split tile to topk trace transpose transpose_ tril tril_ triu triu_ true_divide true_divide_ trunc
    trunc_ type_as unbind unflatten unfold uniform_ unique unique_consecutive unsafe_chunk unsafe_split
    unsafe_split_with_sizes unsqueeze unsqueeze_ var vdot view view_as vsplit where xlogy xlogy_ zero_
    """
)

# attributes of modules, parameters, result tuples, dtype limits, text and containers
_OTHER_ATTRIBUTES = _words(
    """
    L LU P Q R S T U V Vh add append bias bit_length children copy eigenvalues eigenvectors embedding_dim endswith eps
    extend forward get groups in_channels in_features indices insert items join kernel_size keys logabsdet lower
    modules named_parameters normalized_shape num_embeddings out_channels out_features parameters pivots pop remove
    reverse sign smallest_normal solution startswith strip tiny training update upper values weight
    """
)

# underscore names that torch itself uses; a block may not define them
INTERNAL_ATTRIBUTES = _words(
    """
    _addmm_activation _apply _autocast_to_full_precision _autocast_to_reduced_precision _backward_hooks
    _backward_pre_hooks _base _buffers _call_impl _cdata _clear_non_serializable_cached_data _coalesced_
    _compiled_call_impl _conj _conj_physical _dimI _dimV _dtensor__new__ _fix_weakref _forward_hooks
    _forward_hooks_always_called _forward_hooks_with_kwargs _forward_pre_hooks _forward_pre_hooks_with_kwargs
    _get_backward_hooks _get_backward_pre_hooks _get_name _grad _grad_fn _has_symbolic_sizes_strides _indices
    _is_all_true _is_any_true _is_full_backward_hook _is_view _is_zerotensor _lazy_clone _load_from_state_dict
    _load_state_dict_post_hooks _load_state_dict_pre_hooks _make_subclass _make_wrapper_subclass
    _maybe_warn_non_full_backward_hook _modules _named_members _neg_view _nested_tensor_size
    _nested_tensor_storage_offsets _nested_tensor_strides _nnz _non_persistent_buffers_set _parameters
    _philox_normal_ _philox_uniform_ _post_accumulate_grad_hooks _python_dispatch _reduce_ex_internal
    _register_load_state_dict_pre_hook _register_state_dict_hook _replicate_for_data_parallel _rev_view_func_unsafe
    _save_to_state_dict _slow_forward _sparse_mask_projection _state_dict_hooks _state_dict_pre_hooks _to_dense
    _to_sparse _to_sparse_bsc _to_sparse_bsr _to_sparse_csc _to_sparse_csr _typed_storage _use_count _values
    _version _view_func _view_func_unsafe _wrapped_call_impl
    """
)

# methods of nn.Module that the harness relies on; a block may not override or replace them
MODULE_INTERFACE = _words(
    """
    T_destination add_module apply bfloat16 buffers call_super_init children compile cpu cuda double dump_patches
    eval float get_buffer get_extra_state get_parameter get_submodule half ipu load_state_dict modules mtia
    named_buffers named_children named_modules named_parameters parameters register_backward_hook register_buffer
    register_forward_hook register_forward_pre_hook register_full_backward_hook register_full_backward_pre_hook
    register_load_state_dict_post_hook register_load_state_dict_pre_hook register_module register_parameter
    register_state_dict_post_hook register_state_dict_pre_hook requires_grad_ set_extra_state set_submodule
    share_memory state_dict to to_empty train training type xpu zero_grad
    """
)

# Importable modules and the names a block may reach in each; a value that is itself a key here is a module.
MODULES: dict[str, frozenset[str]] = {
    "torch": _TORCH,
    "torch.nn": _NN,
    "torch.nn.functional": _FUNCTIONAL,
    "torch.nn.init": _INIT,
    "torch.linalg": _LINALG,
    "torch.fft": _FFT,
    "torch.special": _SPECIAL,
    "torch.func": frozenset({"vmap"}),
    "math": _MATH,
    "einops": frozenset({"rearrange", "reduce", "repeat", "einsum", "pack", "unpack"}),
    "typing": frozenset({"Any", "Callable", "Dict", "List", "Optional", "Sequence", "Tuple", "Union"}),
}

# What the pristine file has already imported when the block runs.
SHELL_MODULES = {"math": "math", "torch": "torch", "nn": "torch.nn", "F": "torch.nn.functional"}
SHELL_NAMES = frozenset({"Tensor"})

BUILTINS = _words(
    """
    abs all any bool complex dict divmod enumerate filter float int isinstance len list map max min pow
    range reversed round slice sorted str sum super tuple zip property staticmethod classmethod
    ValueError TypeError RuntimeError NotImplementedError AssertionError IndexError KeyError ZeroDivisionError
    ArithmeticError OverflowError
    """
)

ATTRIBUTES = _TENSOR | _OTHER_ATTRIBUTES

# Allowed only while the block is built: they make state, or hold memory nobody has written yet.
INIT_ONLY = _words(
    """
    register_buffer register_parameter add_module register_module requires_grad_ empty empty_like new_empty
    normal_ uniform_ bernoulli_
    """
)

# Refused by name, with the reason a proposer can act on. Everything else that is not listed gets the near matches.
REFUSED: dict[str, str] = {
    "data": "it bypasses autograd; use the tensor itself, or .detach() to stop a gradient",
    "grad": "gradients belong to the trainer",
    "grad_fn": "gradients belong to the trainer",
    "backward": "gradients belong to the trainer; write an inner gradient in closed form",
    "autograd": "gradients belong to the trainer; write an inner gradient in closed form",
    "requires_grad": "a block must do the same whether or not a gradient is wanted; use .detach() to stop one",
    "is_grad_enabled": "a block must do the same whether or not a gradient is wanted",
    "enable_grad": "gradients belong to the trainer; only torch.no_grad() is allowed",
    "is_leaf": "a block must do the same whether or not a gradient is wanted",
    "retain_grad": "gradients belong to the trainer",
    "apply": "it runs code on every submodule; initialise parameters one by one in __init__",
    "apply_": "it runs Python on every element; use tensor operations",
    "map_": "it runs Python on every element; use tensor operations",
    "numpy": "it leaves torch and autograd; use tensor operations",
    "tolist": "it leaves torch and autograd; use tensor operations",
    "storage": "it reaches memory outside the tensor; use indexing",
    "untyped_storage": "it reaches memory outside the tensor; use indexing",
    "data_ptr": "it reaches memory outside the tensor; use indexing",
    "as_strided": "it reaches memory outside the tensor; use unfold or indexing",
    "as_strided_": "it reaches memory outside the tensor; use unfold or indexing",
    "set_": "it reaches memory outside the tensor; make a new tensor",
    "resize_": "it exposes memory nobody has written; make a new tensor",
    "format": "it can read any attribute through text; use an f-string",
    "format_map": "it can read any attribute through text; use an f-string",
    "register_hook": "hooks change what the trainer sees; compute in forward",
    "register_forward_hook": "hooks change what the trainer sees; compute in forward",
    "register_forward_pre_hook": "hooks change what the trainer sees; compute in forward",
    "register_full_backward_hook": "hooks change what the trainer sees; compute in forward",
    "register_full_backward_pre_hook": "hooks change what the trainer sees; compute in forward",
    "register_backward_hook": "hooks change what the trainer sees; compute in forward",
    "cuda": "a block runs where its input is; use device=x.device",
    "cpu": "a block runs where its input is; use device=x.device",
    "is_cuda": "a block must do the same on every device",
    "is_cpu": "a block must do the same on every device",
    "get_device": "a block must do the same on every device",
    "type": "use .to(dtype) to convert",
    "train": "the trainer sets the mode",
    "eval": "the trainer sets the mode",
    "manual_seed": "the random state belongs to the trainer",
    "Generator": "a block may draw random numbers in __init__ only, from the state it is given",
    "random": "a block may draw random numbers in __init__ only, with torch.randn or torch.rand",
    "Dropout": "the model has no dropout; a block must be deterministic",
    "dropout": "the model has no dropout; a block must be deterministic",
    "gumbel_softmax": "a block must be deterministic",
    "BatchNorm1d": "it mixes rows of the batch; normalise each position, as nn.LayerNorm does",
    "batch_norm": "it mixes rows of the batch; normalise each position, as F.layer_norm does",
    "compile": "the harness decides what is compiled",
    "jit": "the harness decides what is compiled",
    "Function": "custom autograd functions can misreport gradients; use ordinary operations",
    "load": "a block may not read files",
    "save": "a block may not write files",
    "hub": "a block may not use the network",
    "ops": "raw operators are outside the allowed set; use torch.<function>",
    "state_dict": "parameters are read and written by the harness",
    "load_state_dict": "parameters are read and written by the harness",
    "buffers": "buffers are read by name, self.<name>",
}
