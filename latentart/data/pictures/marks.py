"""The mark of media that a trained network made, as IPTC words it, in the packet that pictures carry (XMP)."""

from __future__ import annotations

SOURCE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
XMP_IN_PNG = "XML:com.adobe.xmp"
AI_MADE = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/"'
    f' Iptc4xmpExt:DigitalSourceType="{SOURCE}"/></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
)


def gif_block(xmp: str) -> bytes:
    """Return the extension of a GIF that holds a packet, as Adobe's XMP specification has it, part 3, section 1.1.2.

    Its last 258 bytes lead any reader that takes the packet for blocks of data to the end of it.
    """
    return b"\x21\xff\x0bXMP DataXMP" + xmp.encode() + bytes([1, *range(255, -1, -1), 0])
