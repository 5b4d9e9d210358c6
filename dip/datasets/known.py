"""The picture sets of the literature: their pictures with sizes and hashes, and where to get them.

The hash tells whether a file holds the pixels that published figures were measured on: it is the SHA-256 of the
decoded 8-bit pixels (rows of gray or of RGB), which does not depend on the file's format. Of the set with JPEGs,
whose pixels depend a little on the decoder, it is that of the file.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

__all__ = ["PHOTOGRAPHS", "SETS", "Known", "PictureSet", "photograph"]


@dataclass(frozen=True)
class Known:
    """A picture of a set: its name, its shape, (H, W) or (H, W, 3), and its SHA-256."""

    name: str
    shape: tuple[int, ...]
    sha256: str


@dataclass(frozen=True)
class PictureSet:
    """A picture set.

    Attributes
    ----------
    name : str
        As it is asked for.
    about : str
        One line: what it is and what it is used for.
    source : str
        Where to get it, in words.
    folders : tuple of str
        The usual names of its folder.
    known : tuple of Known
        Its pictures, and masks.
    of_files : bool
        The hashes are of the files, and the names have extensions; otherwise of the pixels.
    address : str or None
        Where its pictures can be fetched: this, and the name of the picture with its extension.
    """

    name: str
    about: str
    source: str
    folders: tuple[str, ...]
    known: tuple[Known, ...]
    of_files: bool = False
    address: str | None = None


def photograph(name: str) -> np.ndarray:
    """One of the bundled photographs: 256 x 256 pixels cut from a picture in scikit-image's own files.

    Cut out and not made smaller, which would leave more detail in each pixel than a camera gives.

    Parameters
    ----------
    name : str
        A key of `PHOTOGRAPHS`.

    Returns
    -------
    ndarray
        (256, 256) or (256, 256, 3), uint8.
    """
    from skimage import data

    load, top, left = _CUTS[name]
    whole: Callable[[], np.ndarray | tuple[np.ndarray, ...]] = getattr(data, load)
    picture = whole()
    picture = picture[0] if isinstance(picture, tuple) else picture  # the left one of a stereo pair
    return picture[top : top + 256, left : left + 256].copy()


def _table(text: str) -> tuple[Known, ...]:
    rows = (line.split() for line in text.split("\n") if line)
    return tuple(Known(name, tuple(map(int, size.split("x"))), sha256) for name, size, sha256 in rows)


# scikit-image's function, and the top left corner of what is cut out. All are in the public domain or CC0, but the
# motorcycle, which is from the Middlebury 2014 stereo benchmark.
_CUTS = {
    "astronaut": ("astronaut", 0, 96),
    "cat": ("cat", 22, 120),
    "coffee": ("coffee", 60, 230),
    "motorcycle": ("stereo_motorcycle", 180, 330),
    "camera": ("camera", 40, 130),
    "brick": ("brick", 0, 0),
}

_PHOTOGRAPHS = """
astronaut 256x256x3 0767e0e31b20a703f1f94032461f16eaca11a71892f0a05bc0b1414960406838
cat 256x256x3 fc902cf42fdb0760b010e1c998759589510a24104539abeb69dc5c406152ba2f
coffee 256x256x3 e59bf3413ad06b0c007d6f1658ccc4275a7eb73edc94f0b6f9f2b57ff3402575
motorcycle 256x256x3 16fd2c16324db721712c7929c90def7ed688e3e49243243155178e4c2bb5f51e
camera 256x256 0018b5183626755cc2d27848b833d319f54bd97a1ba83a0c9b33e011a6a66a82
brick 256x256 98c6b6ca54d143f39d6688b9883893bcdae9c32bc387aded44e5edbda654d2fe
"""

_SET5 = """
baby 512x512x3 f14d515486b1a110a8f6a08b23114a7c0ef79e96337692bb48e24dfd8943b3b7
bird 288x288x3 0f7ca11adc96abc59dd08160fb99dc77a3732ffc7b903db6832eceeb5592dcbf
butterfly 256x256x3 200d3ae507119f83763ea74f31f54de31cad6a36ec478cae7a8eab2de2304163
head 280x280x3 1aca63a883d2cabd7a143dd452427305ca9fa8ab965d7202d9081fcce5cbd508
woman 344x228x3 6d9d5a40b83984bde434c44ae6e070484ec37b15741b4561c684b2001deb474f
"""

_SET9 = """
baboon 512x512x3 526f7c8cc1eea030e4417c189920223fb5b3e59317dbca2118f4832f72f97ef2
f16 512x512x3 c9ca18e8a90f4c9d045fdb27e034bd7991a7576974920c9ff7ee16cd3cadbd6d
house 256x256x3 98705d3fad694efaeb0963d44ee4e491b719fddbb49ffd639e4a15a9592c79ca
kodim01 512x768x3 a00210743353594464ac67e680a41710f484444ca5f9dfddeb570de25c428273
kodim02 512x768x3 ae5a495df4ec40e0941265440ccf98973915b4190ab803e37a23ca93dd43a07e
kodim03 512x768x3 234e61f585503f2a44400f5561131e8a512ef2c15328cd83d5cdbf10e2616cf2
kodim12 512x768x3 f412db2168e599949aac26bd3264f111b23a684f30a21cfd320e9e95bc69bbae
lena 512x512x3 01f8ff0e23a809255ae52a9857a7aeb0f89d92610205fef29c36c3d359ac3339
peppers 512x512x3 a18d4e9adaa8677dbf9d454680ace6000767e81a349ddbebf988670d1623bb85
"""

_SET11 = """
Cameraman256 256x256 9894a7154efd51682454b4015ee02a0a5b88514d6cbac465b8409081993ba10e
Lena512 512x512 3398ca972eaab19f8331f080d8161d928db87693d1ed5c8a94381d350828a462
barbara 512x512 79f36e2eeecf465a6e14b7c547969bb8c3bf5ab8e832205b95ba040fe012e927
boat 512x512 b292548c463580074f3032fdecf2c1873114b797d0827a1e52e9ef37c99989f7
couple 512x512 777c75f2c468ce89178f06c0202fa4433fb5327535eddb8c7733eed7deb5a29e
fingerprint 512x512 df6603084537c0691461436d2ee5bdde9594f1a8b8c486625a96d3a10a303f80
hill 512x512 e317fc96af2609d42b8fba3d45669739224e38338ad02fd8272a9e9d1bcf5613
house 256x256 89f9a4126518c21d8ef8920c632e738b8a8e8b9513b2a52703c2e3d3b01c8202
man 512x512 c4d5d2ca03a2a68c3eb9f691f6e2ab9d3712a1f99598ed1c118b22c6d416bef5
montage 256x256 d33b205c7acfc870ecca6bfd00061ae2c473d1e75cc635afd5edb55b3cd20119
peppers256 256x256 9354428e02da09055930ae27e43676de960a9b9c77fd517a60adeeadbcd4eada
"""

_SET12 = """
01 256x256 7e12901bff000a7fc1220c9667108353e9ef9a1b7bb406d34256016bfacb71d2
02 256x256 89f9a4126518c21d8ef8920c632e738b8a8e8b9513b2a52703c2e3d3b01c8202
03 256x256 9354428e02da09055930ae27e43676de960a9b9c77fd517a60adeeadbcd4eada
04 256x256 87b2dfff0735e3a9d4277aa7d0543ec07cbeec46b340e085d497be08f4149b9c
05 256x256 1ea2dfa9f236cfbfd01ee1896027927a488e27314692c586708bd6aecc54b557
06 256x256 71ec37f601e180463b27173d3791a9e880714708f09411a60ea6a63e58217794
07 256x256 fdb37a046a77a06dd0d30adcedf3318ed1af1528e228bdaad82412830325e671
08 512x512 3398ca972eaab19f8331f080d8161d928db87693d1ed5c8a94381d350828a462
09 512x512 79f36e2eeecf465a6e14b7c547969bb8c3bf5ab8e832205b95ba040fe012e927
10 512x512 b292548c463580074f3032fdecf2c1873114b797d0827a1e52e9ef37c99989f7
11 512x512 c4d5d2ca03a2a68c3eb9f691f6e2ab9d3712a1f99598ed1c118b22c6d416bef5
12 512x512 777c75f2c468ce89178f06c0202fa4433fb5327535eddb8c7733eed7deb5a29e
"""

_SET14 = """
baboon 480x500x3 98907465928a27865658a818db29276338ea9eaf528f7dbe1515a0d800f74614
barbara 576x720x3 0267e5896588256605a865df7b6bbe7c346b8059e970bbf8cae99b0973f38cec
bridge 512x512 5dcb11614ab9734cbe24263b7abadf879df0c54a7b3b950de7f046d905fc4fa5
coastguard 288x352x3 59e27df80c33a7cbef338414b81a5745cc9bf8d72a6d9275d7c773cd9f149520
comic 361x250x3 57505129f413912195e0ef1875d3deb72259776ed934c455e12e5cbe743ac9f6
face 276x276x3 10729944d3efb29e5ec99a92cb80ddfa4a69f6853549ba9691a98dd81a01ebf7
flowers 362x500x3 806ffffa563c57c5c1583872a4c3aba620c3a590d61b68f0bbccf5aabaedd528
foreman 288x352x3 df44893b86c999937d2354ff96a9b56ccf95afbac530005bdb342f3b84eca818
lenna 512x512x3 467e7e33da6f66bd3b9a61510cb7ce87d7fd004d82d8a15e3febecd7a5f314c9
man 512x512x3 6b586ecfe5e768e612442c459430a451ba4490934d28ec7ac6c6ccfd025f802a
monarch 512x768x3 601d3e0f5563eeef71d45f8a89ac73cf2f3d546cf572b8f8744950d17927c0d8
pepper 512x512x3 a18d4e9adaa8677dbf9d454680ace6000767e81a349ddbebf988670d1623bb85
ppt3 656x529x3 a855ec6f6aae3f6e18fe4830751437f99f5735156da92c40208d87b1632fa530
zebra 391x586x3 caab9603b04192480c22bdb13717612760a531a7f127ee0fa6c471bf34ca6c52
"""

_KODAK24 = """
kodim01 512x768x3 a00210743353594464ac67e680a41710f484444ca5f9dfddeb570de25c428273
kodim02 512x768x3 ae5a495df4ec40e0941265440ccf98973915b4190ab803e37a23ca93dd43a07e
kodim03 512x768x3 234e61f585503f2a44400f5561131e8a512ef2c15328cd83d5cdbf10e2616cf2
kodim04 768x512x3 e88e788fca00e6c723bb66ff45edb8cb56091ee284dcb73e3909834f2c96eeb6
kodim05 512x768x3 ed3d1ee770909d3b27903b52ce19ee59a9bf24621a7bf1fb57b90677da880cb6
kodim06 512x768x3 7f45158999fa297d1cfbd292b3e2f3f5b27770701c3473155c211c3f512cc97f
kodim07 512x768x3 4e3664bf6fe865b49f15f7b554efa7dbecaf73ae0e8699f2e307bf07849f1264
kodim08 512x768x3 889c3740e4ed54ca53d11ae735a44d15fa24fe312b3bd1609a80618a4092c208
kodim09 768x512x3 f8453140e63a42301a6dbebb849a3cc40d34e4e59580eb1f372f7f5460df0dbe
kodim10 768x512x3 fabe11b5c4f028394e093a5b5907e5fabc8072da0d5334fb3a38547a7e1be842
kodim11 512x768x3 ab4dd9bf8431e717d33892b3ba03c63bfea3c7fa72c2610010de7df3c194c075
kodim12 512x768x3 f412db2168e599949aac26bd3264f111b23a684f30a21cfd320e9e95bc69bbae
kodim13 512x768x3 875703d56fb9396f478b5d7d3b18e2b77c17147a685c6dc2567e1c574aaf01e3
kodim14 512x768x3 2bd5029ee75ac1697542e5b05624e8afe186e3250abd7513d6a806b52084c2f0
kodim15 512x768x3 b5353e7511277009922ecbdebfc6418fec53aa1b2a08d44fc957a7540825697b
kodim16 512x768x3 ed21745fd32fce95cc2c6af7fc52b1b15e590c7a14ab18ab34bd65ecaf955ac7
kodim17 768x512x3 566bc866664e9b06dc86e2654051b454844efe17322dbf7e24156d8243f1943e
kodim18 768x512x3 3475af71066f3ca8206eb12cfc989ebe9c6e44820a96604e88ae018606e1f7bd
kodim19 768x512x3 7956408ef24222d37ac53f579bd24d5b2c3557b16c657e8b71c1b6ae9f18de1b
kodim20 512x768x3 666ce8f2db5566a123bb081e70618f6f4c4253df960f3b41bb9dcc3dd134f3cf
kodim21 512x768x3 2d6902daf7c4486b7c8c04d834091841a2b38c8f0c81cd7a963a6510b34a2a6a
kodim22 512x768x3 f430842120c108b67725ada96b8b7b2a914f6a0915eacd5595064c6c1a5d70a0
kodim23 512x768x3 81992a83592267e69125666f3e3e04c1819529b4c4c1e55fde0a6a741bac4219
kodim24 512x768x3 e3e3ccc3e795b82a3da66934409dfe98ce0f5aadc6d7767543c506453599bb98
"""

_CBSD68 = """
3096 321x481x3 763cdc8588939e5aeebc6d17a64c8211431acbb38c932aad05962b7c5e43704b
12084 321x481x3 250da6921611dc79d1755a8e379d32ca023b946661cf897768d5af84cf4c8bff
14037 321x481x3 2f314d769cfe20fd232bd8e60195fde3e5c0b83c77c1569d44ffa07c4cd40468
16077 321x481x3 922611947c97fdc1f1ceefbf74bff59e2096759102935b9aca128b8e3f15f695
19021 321x481x3 bb061eabe2dc32ded637facacfef4cac462f1c1d52a49e48b390dfef9e727b31
21077 321x481x3 f65692d4ed37a81ec8e0d2fcbf072b14773d6509e0da1c01172b46822a763b03
24077 321x481x3 92eeaf2d8d8f11c3ba1253cc23871cd9af19c6427d959714c012fd2412d69976
33039 481x321x3 fcd4669bc8c9864b96a7f41f1f9a226799d84fe60758110e3c4f8179649f117b
101085 481x321x3 289c12ab355e671040cc36e6614122fc1002cd0538ea38e6776bab76ace9dcfa
101087 481x321x3 68555286ef7396258c16456fd71646b94ee0f87b0e34c60a9f933df7d63bac76
102061 481x321x3 9c968cf892da02759ae1113028cb40fc06b84b3c10aee2c0dd39b3d9be405217
103070 321x481x3 9cc807ef8b6e9ea9ed926ce0134d3922908bb81286a5c2c737dfff976f35da47
105025 321x481x3 3798142fec9b4d07cf1e7aa76851875f2fa9a1c52d7a10288737179d34ce0a7a
106024 321x481x3 a7cfc20ef43557a758b9cd5d733f632052e2b6670e833e3126870fcf5191a5d7
108005 321x481x3 c7cd35bf6929df27eb6652533bed4283b3e6ad274bad987736f7fac191bfd70a
108070 321x481x3 edfbeb79ae117e6d4e26b4e2d2a19d3f32bc043129d94547b0947f7fc132d89c
108082 321x481x3 850fd21ea0fe1a3f8d42c4e1c9150e5c69790c46df1e039541e20f3ffcd8cd6c
109053 321x481x3 594b20e1163035031d3b49978dd7bc2eac25851fe2313f0de0efc26746761aef
119082 321x481x3 227003ab310209af829a53c6d765d9be4c3b59f7d6f4824b970bed4441d756b4
123074 321x481x3 f2d9319abc93dcfc8d40bb14174e4092dcb9bc8b7dc42493e2aa366f815b9385
126007 321x481x3 5ae56ba1769d837211193ec5b0b7a7567b49b5e1dc8d25dcaec3544cd2adc9b9
130026 321x481x3 00aa537aac9265a2c79aba8a63c68d989f2d34e990208c2c9c3bbe8f9dc192a4
134035 321x481x3 51c01c415a3d66fa235b26305ca302ede9baea8efe3469b57231cd07116d7a93
143090 321x481x3 137f8d0b4f08fdd9b7727674c183cc1deb08175e171830dea923f5d72fb2c6e6
145086 321x481x3 5a043b17ccaf8d585e7f293f12f29074b56a4278447359e9c924ad056e9833cf
147091 321x481x3 2e29800df92ea7f7bb69888d4206d617bc5894506d156c55c8180fa507a0842d
148026 481x321x3 36f39c3149d707c595305b5317c6f52b6e14e3f53f5d4f1cdf1a98036dfb8ae7
148089 321x481x3 6e5b22c706de417d7763a7d07c21a1768e84d917f75e0463ac2d3fe4ef237417
157055 321x481x3 57933436fe2edfd1b14a3ce5058a7153ceecf7aef1b9bbc1a9eb348cddd13df9
159008 321x481x3 6a6a9aa962bb12f49adc634dc7148c3504b23cbaa1e17afe98d1fc66ea5d8df4
160068 321x481x3 64031320ea9cb4654249d29281a9385978cf2aab3adbc32bae3479b2823dfa66
163085 321x481x3 9cf167ec6748db6c926d66008499315ee781c9ca9d7cdb4865d4dc8b093c9d6a
167062 321x481x3 bb7503b913fd315958614a54b8117c3b3bb34741580440eb2c8211a170956a86
167083 481x321x3 8051618d01674e910d52520231c847c0ad8177a81fdd018d16d922830e831e19
170057 321x481x3 2f8364e1e585e553d3dcf0186b847c3ef371678073a22280050358894cc8d55f
175032 481x321x3 37057ba876a32beb7d88284ceb2c8377437fac5d0d53698848ea7fc2d2a0506e
175043 321x481x3 f42aea2e347850d1a7ee58f024d17b7ec0d949dfa320ca2204ff625509b02cfb
182053 321x481x3 977e718250f474abb3bd5703871542220e5b03fe969724ae651bc30458406fe4
189080 481x321x3 90f55049e9d82d6d546814cbdd1efd5194286accac81d10f7e65eb60d1633658
196073 321x481x3 db9b579bd4b9fbb0d58ddd0fea98c2aebc41e01aeee4c1f97a4422df164bf3d7
197017 321x481x3 4da16fbb8fdd44eff5230ac5e0b79c5de7e480e14582e365b4f8bfac1811dd3a
208001 481x321x3 334a536b385038c1340349d7e3467d11d57e98eef6ccb176daeb98190bdea780
210088 481x321x3 f49f4bb2c697f28883a7afd6dd96e364409a9a0718a02fa1317afbc8e0a7bdb7
216081 321x481x3 ed7521221587c67d3c3c31d64e9d026ed33701774b1a135150eff7b85f94404d
219090 321x481x3 8864776ab6ea963f74ddafca9ca9bf271ee2a0a12cf9be698797a5b9055091e0
220075 321x481x3 31430da34d633a89459f1142611b22c51ac5415551a4ec388c6f74afaf51075a
223061 321x481x3 373ba89e6f9229efafa0f8b1ca8db36a661fd41f393616f5b78a93222e3263df
227092 481x321x3 70e3fe911cc453d6f7686232b85d88aa0559ab59fd8ad521d96db606963d0a40
229036 321x481x3 143b037f30be7a81d6dafa4bbbe5148d15a52ebc2ef64326062b7d07aeb8912b
236037 321x481x3 f040277f6c12678a7249b7e4474562b788aa9fc0c4d7a0ba7de2a6163cd09d9b
241004 321x481x3 c96c67afaea34daa2f5e790c5d33eb9b03f87d989f462bed209ea0d6fb1656bd
241048 321x481x3 169627cd3f65dc95865bb2b00c235eabe34b55388e41cb1c37a4f98fed25e076
253027 321x481x3 c9afa228dd488e2ee0000ab013582cffd12857a85def577d664f9fad5ae79914
253055 321x481x3 975d4cae8eb148daa4fdd958d1bc2cffdae3188003aae5515e70bcbf644a0881
260058 321x481x3 254a8d751ace0bfd796c8b904e1bcfaa66308a0b6bd39bf871affeffb835c81e
271035 481x321x3 45846579f0f25c1deb165cb558bffa6e9e4678a784f151372864fd46a52e1d0e
285079 481x321x3 053a2430900e0d791769bf17ad289389fb9021807008e48ada941890cc4fed65
291000 321x481x3 f3a36fd268679e46edbcf91c371b0789845d6e9cd00dfe8874bc82e6dc7f33dd
295087 321x481x3 860e641032f0684cbce6285d2f47cd360e4f1460ea03cfe3221422c7436651bd
296007 321x481x3 836fa46a62aae4b0d2a185da38acb7094ea7940bfce210829927761793e06c8d
296059 321x481x3 2d071245dd12fdb4ad84f975fbe3a3dcd4a886b561f97fc1b4b282efd491e81c
299086 321x481x3 b6db58df79999f2e478893b630c32714ec8704b540e7abd0e4edac7a9509c7e0
300091 321x481x3 fb99b3b89f0dea5fce0726fafaf509c05e297dddf760952db331d61d99642f79
302008 481x321x3 30867332d99f083a1cfa418de8627942c24ba061d744f35daf0de15138ef170a
304034 321x481x3 f1ece265db0ab4a63abc5958f7d18b6076a4ffa57edc4a6a34f16ac2722d6cba
304074 481x321x3 5caaff78102f655d357ec74dea7f0f80a41217aa40a5238d05033e9663b7c3f3
306005 321x481x3 9fc2cbb6b4353c65e5a5f98a09d4036d0326d98417ea9f86bea7471f632d117a
351093 321x481x3 e1faf2aa7fbc59eccb2bc4b0f99e6a7b46039df5903b284e2d96a216c9e4480e
"""

_MCMASTER = """
1 500x500x3 70d880a0b4d3699134da3e8389a0b5506ba996e7fb06b0e0ba7c5f1a0d20dc5f
2 500x500x3 6f9a3ec7248d86e3361dac7b1f975f56de9fc44ec766faf83b77c76c70a149d9
3 500x500x3 ba85adf6e91abb7849ff374ece8439fabf6b982c44242932df568bf15a193d46
4 500x500x3 4895cd9fabdac3d5564973996f0ceaff6324077dcf86f624569a29638cef3783
5 500x500x3 e8544cebf3e2768cfb62e655a278b233f2c1b6585d615b4619d2c5a1a9448626
6 500x500x3 f01472bb940367a233d50eda3a6e04b4865c32b1ea46557a0f9b55a79e238277
7 500x500x3 9bab193e76304aa080a7d47c7518f841df831ef2bcba10abc49e13784aa09f2c
8 500x500x3 860b9a5d23ba75962c81f47b4b9d04a487d4aedb69ad6583a65654348fd35842
9 500x500x3 4a918df72b5bc9aec1588c6af4efc4bc1038ca91beb494fc502438661586a455
10 500x500x3 7765fe9e799ec21cc52345247e24a67cd903c49292f4c9c98680511df5900a6f
11 500x500x3 8b34ab8eb96d420efd208c5933b45a91e167133154943daabac4298fa7d6eb44
12 500x500x3 9eac57d83e7bd7e1175e3b439450b10e79030ae2d59d4d23e1916f24b10be82d
13 500x500x3 68ed9b9b1137b86b2f3e520d12a382d83f709656fa29e0f008eb7367c2acdd7d
14 500x500x3 be177da9e4e8221b3a2d548fbacde0d78113e5491f2aaa7bb0e5142270b3684b
15 500x500x3 dde5cb76b77cd4a5b460579067c5c2821f62636bfa138285a6e818538733caa6
16 500x500x3 292040375a7db79ca67577905481a59e92f2262c90aa66e1d8bd1b7b20a36226
17 500x500x3 5ba4f3f93175abbcf875e5bd33076c6f81faadd75368031190cb79d6fc339731
18 500x500x3 e6474ee7cdc1408e7e95ea2e6102b9c9957aa599ed625d3787c64198fb7d012e
"""

_DIP_PAPER = """
denoising/F16_GT.png 512x512x3 33810cc97ab8222e5bbb5fb32394d314d7d53564b008a4bf5371d0044ca45336
denoising/snail.jpg 261x400x3 a3e95dd1c2d3030a6d14a3424f59b0d639e3e6c966eac0b753457bbaf41dd779
flash_no_flash/cave01_00_flash.jpg 706x774x3 d05df54ea3edea45eadc03d233003663b55f6a590982ba0b6f882b2833939216
flash_no_flash/cave01_01_noflash.jpg 706x774x3 54bb3d43584d4c79c86ee3a727303ab6f4f2560ea8df9f99c1045d48c713e26e
inpainting/kate.png 512x512x3 8516aecf3628fd97ba12ab480d7b9c64d1c8e06be2ef603256087a40cae4971a
inpainting/kate_mask.png 512x512 631ffd05b0fc43a72dc06c54331977173d5b4e6706bb4fa5191d822b90ea8f1b
inpainting/library.png 448x704x3 4795d1f90c0c5310456057a8ea219e2bcf9ff2f6abcd9a192abfe0c2d472a647
inpainting/library_mask.png 448x704 6908be662bf67becc5495422f242eac7e4701a91d5c814112d804d22b37fcc55
inpainting/vase.png 320x320x3 1c25862a0a914bdb29ee793d182533b9e64c2c2da40d56623ee33f9dcfd38424
inpainting/vase_mask.png 320x320 9f7a689863d21c920b00c771df45c65c76c32b924ed3dfc11e81d1fc6ecd350a
restoration/barbara.png 512x512 764b8a2748cc7ad381cccc047c5e512cb528c197ba86adb83aa339e8932e66c0
restoration/kate.png 512x512x3 a43cd7635db9537e936c5fed75ec9c2ef6c7c41b5d6a61cd0b38c6120e79a7f2
sr/zebra_GT.png 388x584x3 eb531120c7bddf6858c2d9c274ce989df63becd39a4dd29f46215a21a884603a
sr/zebra_crop.png 160x256x3 77d0807d3208e3b640703b597562ccc689768a1f4afa05285492086364f7771f
"""

PHOTOGRAPHS = {known.name: known for known in _table(_PHOTOGRAPHS)}
"""The bundled photographs, by name."""

_SWINIR = "https://github.com/JingyunLiang/SwinIR"
_GP_DIP = "https://github.com/ZezhouCheng/GP-DIP"
_DIP = "https://github.com/DmitryUlyanov/deep-image-prior"

SETS = {
    each.name: each
    for each in (
        PictureSet(
            "set5",
            "5 colour pictures, 228 to 512 pixels; super-resolution",
            f"testsets/Set5/HR of {_SWINIR}, or the supplement of M. Bevilacqua et al., BMVC 2012",
            ("set5", "Set5"),
            _table(_SET5),
        ),
        PictureSet(
            "set9",
            "9 colour pictures, 256 to 768 pixels; denoising, in the DIP paper",
            f"data/denoising/Dataset of {_GP_DIP} (as it is: the pictures are found by their pixels)",
            ("set9", "Set9"),
            _table(_SET9),
        ),
        PictureSet(
            "set11",
            "11 gray pictures, 256 and 512 pixels; missing pixels, in the DIP paper",
            f"data/inpainting/Dataset_Bernoulli of {_GP_DIP}",
            ("set11", "Set11"),
            _table(_SET11),
        ),
        PictureSet(
            "set12",
            "12 gray pictures, 256 and 512 pixels; denoising, in the DnCNN paper",
            f"testsets/Set12 of {_SWINIR}",
            ("set12", "Set12"),
            _table(_SET12),
        ),
        PictureSet(
            "set14",
            "14 pictures, 13 in colour, 250 to 768 pixels, uncropped; super-resolution",
            'R. Zeyde et al., "On Single Image Scale-Up Using Sparse-Representations", 2010: the originals, not those '
            "that were cropped to a multiple of a factor",
            ("set14", "Set14"),
            _table(_SET14),
        ),
        PictureSet(
            "kodak24",
            "24 colour photographs, 768 x 512, whole (not the 500 x 500 crops of some papers); denoising",
            "https://r0k.us/graphics/kodak/ (released by Kodak for unrestricted use)",
            ("kodak24", "Kodak24", "kodak", "Kodak"),
            _table(_KODAK24),
            address="https://r0k.us/graphics/kodak/kodak/",
        ),
        PictureSet(
            "cbsd68",
            "68 colour photographs, 481 x 321, of the Berkeley segmentation data set; denoising",
            "CBSD68/original_png of https://github.com/clausmichele/CBSD68-dataset",
            ("cbsd68", "CBSD68"),
            _table(_CBSD68),
        ),
        PictureSet(
            "mcmaster",
            "18 colour photographs, 500 x 500; demosaicking and denoising",
            f"testsets/McMaster of {_SWINIR}",
            ("mcmaster", "McMaster", "mcm"),
            _table(_MCMASTER),
        ),
        PictureSet(
            "dip-paper",
            "11 pictures of the DIP paper's own experiments, three with masks",
            f"data of {_DIP}",
            ("dip_paper", "dip-paper"),
            _table(_DIP_PAPER),
            of_files=True,
            address="https://raw.githubusercontent.com/DmitryUlyanov/deep-image-prior/"
            "042e0d4c1e93f4b1eb0932781de55b8cff5e0f40/data/",
        ),
    )
}
"""The sets, by name."""
