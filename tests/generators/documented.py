"""The names and shapes of StyleGAN2-ADA's networks, from the documented structure alone."""


def documented_generator(init):
    """Return the names and shapes of their generator's parameters and buffers."""
    w, synthesis, mapping = init["w_dim"], init["synthesis_kwargs"], init["mapping_kwargs"]
    size, taps = init["img_resolution"], len(synthesis.get("resample_filter", [1, 3, 3, 1]))
    shapes = {"mapping.w_avg": (w,)}
    width = init["z_dim"]
    if init["c_dim"]:
        shapes |= {"mapping.embed.weight": (w, init["c_dim"]), "mapping.embed.bias": (w,)}
        width += w
    for i in range(mapping.get("num_layers", 8)):
        shapes |= {f"mapping.fc{i}.weight": (w, width), f"mapping.fc{i}.bias": (w,)}
        width = w
    side, before = 4, None
    while side <= size:
        block = f"synthesis.b{side}"
        count = min(synthesis["channel_base"] // side, synthesis["channel_max"])
        shapes[f"{block}.resample_filter"] = (taps, taps)
        if before is None:
            shapes[f"{block}.const"] = (count, 4, 4)
        for layer, into in [("conv0", before)] * (before is not None) + [("conv1", count)]:
            shapes |= {
                f"{block}.{layer}.weight": (count, into, 3, 3), f"{block}.{layer}.bias": (count,),
                f"{block}.{layer}.affine.weight": (into, w),
                f"{block}.{layer}.affine.bias": (into,),
                f"{block}.{layer}.noise_const": (side, side),
                f"{block}.{layer}.noise_strength": (),
                f"{block}.{layer}.resample_filter": (taps, taps),
            }  # fmt: skip
        shapes |= {
            f"{block}.torgb.weight": (init["img_channels"], count, 1, 1),
            f"{block}.torgb.bias": (init["img_channels"],),
            f"{block}.torgb.affine.weight": (count, w), f"{block}.torgb.affine.bias": (count,),
        }  # fmt: skip
        side, before = 2 * side, count
    return shapes


def documented_discriminator(init):
    """Return the names and shapes of theirs: blocks keep a filter, and so do layers in them."""
    shapes, side = {}, init["img_resolution"]

    def count(r):
        return min(init["channel_base"] // r, init["channel_max"])

    def conv(name, out, into, k, bias=True):
        shapes[f"{name}.weight"] = (out, into, k, k)
        shapes[f"{name}.resample_filter"] = (4, 4)
        if bias:
            shapes[f"{name}.bias"] = (out,)

    conv(f"b{side}.fromrgb", count(side), init["img_channels"], 1)
    while side > 4:
        shapes[f"b{side}.resample_filter"] = (4, 4)
        conv(f"b{side}.conv0", count(side), count(side), 3)
        conv(f"b{side}.conv1", count(side // 2), count(side), 3)
        conv(f"b{side}.skip", count(side // 2), count(side), 1, bias=False)
        side //= 2
    conv("b4.conv", count(4), count(4) + 1, 3)
    out = count(4) if init["c_dim"] else 1
    shapes |= {"b4.fc.weight": (count(4), 16 * count(4)), "b4.fc.bias": (count(4),),
               "b4.out.weight": (out, count(4)), "b4.out.bias": (out,)}  # fmt: skip
    if init["c_dim"]:
        shapes |= {"mapping.embed.weight": (out, init["c_dim"]), "mapping.embed.bias": (out,)}
        for i in range(8):
            shapes |= {f"mapping.fc{i}.weight": (out, out), f"mapping.fc{i}.bias": (out,)}
    return shapes
