const canvas = document.querySelector("canvas");
const list = document.querySelector("select");
const said = document.querySelector("#said");
const surfaces = JSON.parse(document.querySelector("#surfaces").textContent);
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer;

const show = (number) => {
  for (const card of document.querySelectorAll(".card")) card.hidden = true;
  const surface = surfaces[number];
  list.value = surface ? String(number) : "";
  said.textContent = surface ? surface.title : "";
  if (surface && surface.card) document.getElementById(surface.card).hidden = false;
  picked = surface ? number : -1;
};
let picked = -1;
surfaces.forEach((surface, number) => {
  if (surface.card) list.append(new Option(surface.title, number));
});

const gl = canvas.getContext("webgl", { antialias: true, preserveDrawingBuffer: true });
if (!gl) said.textContent = "This browser cannot draw in three dimensions; choose a muscle by name.";

const compile = (kind, source) => {
  const shader = gl.createShader(kind);
  gl.shaderSource(shader, source);
  gl.compileShader(shader);
  return shader;
};

const start = () => {
  const program = gl.createProgram();
  gl.attachShader(program, compile(gl.VERTEX_SHADER, `
    attribute vec3 place; attribute vec3 normal; uniform mat4 turn; uniform vec3 scale;
    varying float light;
    void main() {
      vec4 p = turn * vec4(place, 1.0);
      light = 0.55 + 0.45 * abs((turn * vec4(normal, 0.0)).z);
      gl_Position = vec4(p.xyz * scale, 1.0);
    }`));
  gl.attachShader(program, compile(gl.FRAGMENT_SHADER, `
    precision mediump float; varying float light; uniform vec3 colour; uniform float flat_;
    void main() { gl_FragColor = vec4(colour * mix(light, 1.0, flat_), 1.0); }`));
  gl.linkProgram(program);
  gl.useProgram(program);
  const at = (name) => gl.getUniformLocation(program, name);
  const uniforms = { turn: at("turn"), scale: at("scale"), colour: at("colour"), flat: at("flat_") };
  const place = gl.getAttribLocation(program, "place");
  const normal = gl.getAttribLocation(program, "normal");
  gl.enableVertexAttribArray(place);
  gl.enableVertexAttribArray(normal);
  gl.enable(gl.DEPTH_TEST);
  let reach = 1;

  const filled = (target, data) => {
    const buffer = gl.createBuffer();
    gl.bindBuffer(target, buffer);
    gl.bufferData(target, data, gl.STATIC_DRAW);
    return buffer;
  };
  const meshes = surfaces.map((surface) => {
    const places = Float32Array.from(new Int16Array(bytes(surface.places)), (v) => v / 10);
    const faces = new Uint16Array(bytes(surface.faces));
    const normals = new Float32Array(places.length);
    for (let f = 0; f < faces.length; f += 3) {
      const [a, b, c] = [faces[f] * 3, faces[f + 1] * 3, faces[f + 2] * 3];
      const u = [0, 1, 2].map((k) => places[b + k] - places[a + k]);
      const v = [0, 1, 2].map((k) => places[c + k] - places[a + k]);
      const n = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
      for (const corner of [a, b, c]) for (let k = 0; k < 3; k++) normals[corner + k] += n[k];
    }
    for (let k = 0; k < normals.length; k += 3) {
      const length = Math.hypot(normals[k], normals[k + 1], normals[k + 2]) || 1;
      for (let i = 0; i < 3; i++) normals[k + i] /= length;
    }
    for (const v of places) reach = Math.max(reach, Math.abs(v));
    return {
      places: filled(gl.ARRAY_BUFFER, places), normals: filled(gl.ARRAY_BUFFER, normals),
      faces: filled(gl.ELEMENT_ARRAY_BUFFER, faces), count: faces.length, colour: surface.colour,
    };
  });

  // Turned about the body's long axis, then tipped; seen from the front at first.
  let [about, tip, zoom] = [0, 0, 1];
  const matrix = () => {
    const [ca, sa, ct, st] = [Math.cos(about), Math.sin(about), Math.cos(tip), Math.sin(tip)];
    // From the front the patient's right (+x) lies on the left; up (+z) is up.
    return new Float32Array([
      -ca, st * sa, -ct * sa, 0, -sa, -st * ca, ct * ca, 0, 0, ct, st, 0, 0, 0, 0, 1,
    ]);
  };
  const draw = (asNumbers) => {
    const [width, height] = [canvas.width, canvas.height];
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    const size = (zoom * 0.95) / reach;
    const shape = Math.min(1, width / height);
    gl.uniformMatrix4fv(uniforms.turn, false, matrix());
    gl.uniform3f(uniforms.scale, (size * height * shape) / width, size * shape, -size / 4);
    gl.uniform1f(uniforms.flat, asNumbers ? 1 : 0);
    meshes.forEach((mesh, number) => {
      const bright = mesh.colour.map((v) => (number === picked ? Math.min(1, v * 0.4 + 0.6) : v));
      gl.uniform3fv(uniforms.colour, asNumbers ? [(number + 1) / 255, 0, 0] : bright);
      gl.bindBuffer(gl.ARRAY_BUFFER, mesh.places);
      gl.vertexAttribPointer(place, 3, gl.FLOAT, false, 0, 0);
      gl.bindBuffer(gl.ARRAY_BUFFER, mesh.normals);
      gl.vertexAttribPointer(normal, 3, gl.FLOAT, false, 0, 0);
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, mesh.faces);
      gl.drawElements(gl.TRIANGLES, mesh.count, gl.UNSIGNED_SHORT, 0);
    });
  };
  const resize = () => {
    canvas.width = canvas.clientWidth * devicePixelRatio;
    canvas.height = canvas.clientHeight * devicePixelRatio;
    draw(false);
  };
  const pick = (x, y) => {
    draw(true);
    const pixel = new Uint8Array(4);
    const down = canvas.height - 1 - Math.round(y * devicePixelRatio);
    gl.readPixels(Math.round(x * devicePixelRatio), down, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, pixel);
    show(pixel[3] ? pixel[0] - 1 : -1);
    draw(false);
  };
  let held = null;
  canvas.addEventListener("pointerdown", (e) => {
    held = { x: e.clientX, y: e.clientY, moved: false };
    canvas.setPointerCapture(e.pointerId);
  });
  canvas.addEventListener("pointermove", (e) => {
    if (!held) return;
    const [dx, dy] = [e.clientX - held.x, e.clientY - held.y];
    if (!held.moved && Math.hypot(dx, dy) < 4) return;
    about += dx / 120;
    tip = Math.max(-1.5, Math.min(1.5, tip + dy / 120));
    held = { x: e.clientX, y: e.clientY, moved: true };
    draw(false);
  });
  canvas.addEventListener("pointerup", (e) => {
    if (held && !held.moved) pick(e.offsetX, e.offsetY);
    held = null;
  });
  canvas.addEventListener("wheel", (e) => {
    e.preventDefault();
    zoom = Math.max(0.5, Math.min(8, zoom * Math.exp(-e.deltaY / 600)));
    draw(false);
  });
  canvas.addEventListener("keydown", (e) => {
    const turns = { ArrowLeft: [-0.15, 0], ArrowRight: [0.15, 0], ArrowUp: [0, -0.15], ArrowDown: [0, 0.15] };
    if (e.key === "+" || e.key === "-") zoom *= e.key === "+" ? 1.15 : 1 / 1.15;
    else if (turns[e.key]) [about, tip] = [about + turns[e.key][0], tip + turns[e.key][1]];
    else return;
    e.preventDefault();
    draw(false);
  });
  list.addEventListener("change", () => draw(false));
  addEventListener("resize", resize);
  resize();
};
list.addEventListener("change", () => show(list.value === "" ? -1 : Number(list.value)));
if (gl) start();
