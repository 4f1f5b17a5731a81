// A picture as a PNG that says how it was drawn, and that a trained network made it.

const crcOf = (bytes) => {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let i = 0; i < 8; i++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
};

// A chunk of text in UTF-8, as section 11.3.3.4 of the specification of PNG has it.
function chunkOf(key, text) {
  const body = new TextEncoder().encode(`iTXt${key}\0\0\0\0\0${text}`);
  const chunk = new Uint8Array(body.length + 8), view = new DataView(chunk.buffer);
  chunk.set(body, 4);
  view.setUint32(0, body.length - 4);
  view.setUint32(body.length + 4, crcOf(body));
  return chunk;
}

const HEAD = 33; // the signature and the first chunk, behind which texts may stand

export async function pngOf(canvas, texts) {
  const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
  return new Blob([blob.slice(0, HEAD), ...Object.entries(texts).map(([key, text]) => chunkOf(key, text)), blob.slice(HEAD)], { type: "image/png" });
}
