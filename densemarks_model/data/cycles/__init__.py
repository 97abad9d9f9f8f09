"""Pictures of synthetic people by Blender's path tracer: ``python -m densemarks_model.data.cycles --out FOLDER``.

The people, poses, cameras and shards are those of :mod:`densemarks_model.data.synthetic`; light that scatters under the
skin, hair of strands and the light of panoramas make the pictures look like photographs. A picture takes seconds instead
of a seventh of one. ``bpy`` (GPL) is an optional tool, imported when a :class:`~densemarks_model.data.cycles.studio.Studio`
opens and never before.
"""
