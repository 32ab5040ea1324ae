// The network in a worker: fetched from the site when it is asked for, run by ONNX Runtime Web.

const reasonOf = (error) => (error instanceof Error ? error.message : String(error));

// In the worker. Messages: load { base, files, version, side }, and detect { id, rgba, width, height }.
function serveDetector(scope) {
  let network = null;
  scope.onmessage = async ({ data }) => {
    try {
      if (data.type === "load") {
        network = await loadNetwork(data, (fetched) => scope.postMessage({ type: "fetched", fetched }));
        scope.postMessage({ type: "ready" });
      } else {
        const { buffers, ...found } = await network(data);
        scope.postMessage({ type: "predicted", id: data.id, ...found }, buffers);
      }
    } catch (error) {
      scope.postMessage({ type: "failed", id: data.id, reason: reasonOf(error) });
    }
  };
}

async function loadNetwork({ base, files, version, side }, tell) {
  const address = (name) => `${base}${name}?v=${version}`;
  let fetched = 0;
  const get = (name) =>
    fetchBytes(name, address(name), (count) => {
      fetched += count;
      tell(fetched);
    });
  const [wasm, model] = await Promise.all([get(files.runtime), get(files.model)]);
  const ort = await import(address(files.script));
  ort.env.wasm.wasmBinary = wasm;
  ort.env.wasm.numThreads = 1; // more need headers that few servers send
  const session = await ort.InferenceSession.create(new Uint8Array(model), { executionProviders: ["wasm"] });
  const run = async (input) => {
    const { offsets, logits } = await session.run({ images: new ort.Tensor("float32", input, [1, 3, side, side]) });
    return [offsets.data, logits.data];
  };
  await run(new Float32Array(3 * side * side)); // the first run takes longer: not on the reader's photograph
  return async ({ rgba, width, height }) => {
    const begin = performance.now();
    const input = prepareImage(new Uint8ClampedArray(rgba), width, height, side);
    const prepared = performance.now();
    const [offsets, logits] = await run(input);
    const times = { resize: prepared - begin, network: performance.now() - prepared };
    return { offsets, logits, times, buffers: [offsets.buffer, logits.buffer] };
  };
}

// A file that is stored compressed, by a name that no server unpacks by itself; `tell` gets the number of bytes of each part.
async function fetchBytes(name, address, tell) {
  try {
    return await unpacked(await fetch(address), tell);
  } catch (error) {
    throw new Error(`${name} cannot be fetched: ${reasonOf(error)}`);
  }
}

function unpacked(response, tell) {
  if (!response.ok) throw new Error(`the server says ${response.status}`);
  const counted = response.body.pipeThrough(
    new TransformStream({
      transform(part, out) {
        tell(part.length);
        out.enqueue(part);
      },
    }),
  );
  return new Response(counted.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

// On the page: a worker with the network. `detect` gives a promise of offsets, logits and times.
function detectorWorker(script, about, tell) {
  const worker = new Worker(script);
  const waiting = new Map();
  let asked = 0;
  /** @type {Promise<void>} */
  const ready = new Promise((resolve, reject) => {
    worker.onmessage = ({ data }) => {
      if (data.type === "fetched") tell(data.fetched);
      else if (data.type === "ready") resolve();
      else if (data.type === "failed" && data.id === undefined) reject(new Error(data.reason));
      else {
        const { resolve: done, reject: failed } = waiting.get(data.id);
        waiting.delete(data.id);
        if (data.type === "failed") failed(new Error(data.reason));
        else done(data);
      }
    };
    worker.onerror = (event) => {
      const error = new Error(event.message || "the worker cannot be started");
      reject(error);
      for (const one of waiting.values()) one.reject(error);
      waiting.clear();
    };
  });
  const { files, version, side } = about;
  worker.postMessage({ type: "load", base: new URL("photograph/", script).href, files, version, side });
  const detect = ({ data, width, height }) =>
    new Promise((resolve, reject) => {
      asked += 1;
      waiting.set(asked, { resolve, reject });
      const rgba = data.slice().buffer;
      worker.postMessage({ type: "detect", id: asked, rgba, width, height }, [rgba]);
    });
  return { ready, detect, end: () => worker.terminate() };
}
