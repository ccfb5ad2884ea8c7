// A tree of a program's calls drawn as stacked bars: the flame graph's geometry, apart from its view.
"use strict";
(() => {
  const PyScope = (window.PyScope ??= {});

  const LEAST = 0.0012; // the share of the width below which a bar is not drawn

  /** The node at `path` (indexes of children) and the nodes on the way there. */
  function walk(root, path) {
    const trail = [root];
    for (const index of path) {
      const child = trail.at(-1).children?.[index];
      if (!child) break;
      trail.push(child);
    }
    return trail;
  }

  /** The path in another tree to the functions that `trail` leads through, as far as they are there. */
  function follow(root, trail) {
    const path = [];
    let node = root;
    for (const { name, location } of trail.slice(1)) {
      const index = (node.children ?? []).findIndex((one) => one.name === name && one.location?.line === location?.line);
      if (index < 0) break;
      path.push(index);
      node = node.children[index];
    }
    return path;
  }

  /**
   * The bars to draw with the node at `path` as wide as the graph: [{ node, path, depth, left, width }], left and
   * width as shares. The node's ancestors stand above it at full width; what would be thinner than a pixel is left out.
   */
  function bars(root, path) {
    const trail = walk(root, path);
    const result = trail.map((node, depth) => ({ node, path: path.slice(0, depth), depth, left: 0, width: 1 }));
    const focus = trail.at(-1);
    const total = focus.value || 1;
    const waiting = [{ node: focus, path: path.slice(0, trail.length - 1), depth: trail.length - 1, left: 0 }];
    while (waiting.length) {
      const parent = waiting.pop();
      let { left } = parent;
      for (const [index, node] of (parent.node.children ?? []).entries()) {
        const width = node.value / total;
        if (width >= LEAST) {
          const bar = { node, path: [...parent.path, index], depth: parent.depth + 1, left, width };
          result.push(bar);
          waiting.push(bar);
        }
        left += width;
      }
    }
    return result;
  }

  /** How much of the time was spent under nodes that `wanted` accepts, each stretch counted once. */
  function matched(node, wanted) {
    if (wanted(node)) return node.value;
    return (node.children ?? []).reduce((sum, child) => sum + matched(child, wanted), 0);
  }

  PyScope.tree = { walk, follow, bars, matched };
})();
